# Sourced: the programs that tests and demo start, and the names under which they look for them.

export ENRICHMENT_STAGE=$STAGE
export ENRICHMENT_SANDBOX=$CARGO_TARGET_DIR/debug/enrichment-sandbox
export ENRICHMENT_DEMO=$CARGO_TARGET_DIR/debug/enrichment-demo

build_programs() {
    (cd "$ROOT" && cargo build -p enrichment-sandbox -p enrichment-demo)
}
