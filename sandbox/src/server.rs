//! Starting and stopping a sandbox.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener;
use axum::Router;
use tokio::runtime::Runtime;

use crate::answer::Answer;
use crate::app::{App, Settings};
use crate::socket::{Connection, Door};
use crate::{abuseipdb, control, dshield, greynoise, hibp, internetdb, spur, urlhaus, virustotal};

/// All paths.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .nest("/virustotal", virustotal::routes())
        .nest("/dshield", dshield::routes())
        .nest("/urlhaus", urlhaus::routes())
        .nest("/spur", spur::routes())
        .nest("/hibp", hibp::routes())
        .nest("/greynoise", greynoise::routes())
        .nest("/abuseipdb", abuseipdb::routes())
        .nest("/internetdb", internetdb::routes())
        .nest("/control", control::routes())
        .fallback(|| async { Answer::html(404, "404 no such path").into_response(false) })
        .with_state(app)
}

/// Listens, tells the address to `ready`, and serves until the future is dropped.
///
/// # Errors
/// When the port cannot be opened.
pub async fn serve(settings: Settings, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let door = Door::open(settings.port).await?;
    let address = door.local_addr()?;
    let app = Arc::new(App::new(settings));
    ready(address);
    let service = router(app).into_make_service_with_connect_info::<Connection>();
    axum::serve(door, service).await
}

/// A sandbox inside this process; it ends when this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Sandbox {
    /// Starts one on threads of its own.
    ///
    /// # Errors
    /// When the port cannot be opened or the threads cannot be started.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (tell, told) = std::sync::mpsc::channel();
        let tell_failure = tell.clone();
        runtime.spawn(async move {
            let served = serve(settings, |address| {
                // The receiver waits below; it is gone only if the start was given up.
                let _given_up = tell.send(Ok(address));
            })
            .await;
            if let Err(error) = served {
                let _given_up = tell_failure.send(Err(error));
            }
        });
        let address = told.recv().map_err(|_| io::Error::other("the sandbox ended before it was ready"))??;
        Ok(Sandbox { address, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, for example `/dshield/api/ip/8.8.8.8?json`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Requests that hang on order would hold an orderly shutdown for ever.
            runtime.shutdown_background();
        }
    }
}
