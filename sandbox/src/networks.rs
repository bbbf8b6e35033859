//! Who owns an address: the same invented-by-draw but plausible owner for every provider.

use std::net::IpAddr;

use crate::draw::Draw;

/// An autonomous system and where its addresses are said to be.
#[derive(Debug)]
pub struct Network {
    /// number of the autonomous system
    pub asn: i64,
    /// name in DShield's style
    pub as_name: &'static str,
    /// name of the organisation
    pub organization: &'static str,
    /// two-letter country
    pub country: &'static str,
    /// a city, or empty
    pub city: &'static str,
    /// a state or region, or empty
    pub state: &'static str,
    /// continent
    pub continent: &'static str,
    /// regional registry
    pub registry: &'static str,
    /// rented machines rather than homes
    pub hosting: bool,
}

macro_rules! networks {
    ($($asn:literal $as_name:literal $organization:literal $country:literal $city:literal $state:literal $continent:literal $registry:literal $hosting:literal;)*) => {
        &[$(Network {
            asn: $asn, as_name: $as_name, organization: $organization, country: $country, city: $city,
            state: $state, continent: $continent, registry: $registry, hosting: $hosting,
        }),*]
    };
}

const NETWORKS: &[Network] = networks![
    14061 "DIGITALOCEAN-ASN" "DigitalOcean, LLC" "US" "North Bergen" "New Jersey" "NA" "ARIN" true;
    4134 "CHINANET-BACKBONE No.31,Jin-rong Street" "China Telecom" "CN" "Nanjing" "Jiangsu" "AS" "APNIC" false;
    4837 "CHINA169-BACKBONE CHINA UNICOM China169 Backbone" "China Unicom" "CN" "Jinan" "Shandong" "AS" "APNIC" false;
    45090 "TENCENT-NET-AP Shenzhen Tencent Computer Systems Company Limited" "Tencent Cloud" "CN" "Guangzhou" "Guangdong" "AS" "APNIC" true;
    37963 "ALIBABA-CN-NET Hangzhou Alibaba Advertising Co.,Ltd." "Alibaba Cloud" "CN" "Hangzhou" "Zhejiang" "AS" "APNIC" true;
    16276 "OVH" "OVH SAS" "FR" "Roubaix" "Hauts-de-France" "EU" "RIPE NCC" true;
    24940 "HETZNER-AS" "Hetzner Online GmbH" "DE" "Nürnberg" "Bayern" "EU" "RIPE NCC" true;
    3320 "DTAG Internet service provider operations" "Deutsche Telekom AG" "DE" "Köln" "Nordrhein-Westfalen" "EU" "RIPE NCC" false;
    4766 "KIXS-AS-KR Korea Telecom" "Korea Telecom" "KR" "Seoul" "Seoul" "AS" "APNIC" false;
    9829 "BSNL-NIB National Internet Backbone" "BSNL" "IN" "Chennai" "Tamil Nadu" "AS" "APNIC" false;
    45899 "VNPT-AS-VN VNPT Corp" "VNPT" "VN" "Hanoi" "" "AS" "APNIC" false;
    28573 "Claro NXT Telecomunicacoes Ltda" "Claro" "BR" "São Paulo" "São Paulo" "SA" "LACNIC" false;
    8151 "UNINET" "Uninet S.A. de C.V." "MX" "Querétaro" "Querétaro" "NA" "LACNIC" false;
    12389 "ROSTELECOM-AS" "Rostelecom" "RU" "Moscow" "Moscow" "EU" "RIPE NCC" false;
    49505 "SELECTEL" "Selectel Ltd" "RU" "Saint Petersburg" "" "EU" "RIPE NCC" true;
    9009 "M247" "M247 Europe SRL" "RO" "Bucharest" "" "EU" "RIPE NCC" true;
    202425 "INT-NETWORK" "IP Volume inc" "NL" "Amsterdam" "North Holland" "EU" "RIPE NCC" true;
    16509 "AMAZON-02" "Amazon.com, Inc." "US" "Ashburn" "Virginia" "NA" "ARIN" true;
    8075 "MICROSOFT-CORP-MSN-AS-BLOCK" "Microsoft Corporation" "US" "Boydton" "Virginia" "NA" "ARIN" true;
    396982 "GOOGLE-CLOUD-PLATFORM" "Google LLC" "US" "Council Bluffs" "Iowa" "NA" "ARIN" true;
    20473 "AS-VULTR" "The Constant Company, LLC" "US" "Miami" "Florida" "NA" "ARIN" true;
    7922 "COMCAST-7922" "Comcast Cable Communications" "US" "Philadelphia" "Pennsylvania" "NA" "ARIN" false;
    7713 "TELKOMNET-AS-AP PT Telekomunikasi Indonesia" "Telkom Indonesia" "ID" "" "" "AS" "APNIC" false;
    36873 "VNL1-AS" "Airtel Networks" "NG" "Lagos" "Lagos" "AF" "AFRINIC" false;
    4788 "TTSSB-MY TM TECHNOLOGY SERVICES SDN. BHD." "Telekom Malaysia" "MY" "" "" "AS" "APNIC" false;
    3462 "HINET Data Communication Business Group" "Chunghwa Telecom" "TW" "Taipei" "" "AS" "APNIC" false;
];

/// The owner of an address.
pub fn owner(ip: IpAddr) -> &'static Network {
    // All addresses of a /16 (or an IPv6 /32) have one owner, as they mostly do.
    let block = match ip {
        IpAddr::V4(v4) => format!("{}.{}", v4.octets()[0], v4.octets()[1]),
        IpAddr::V6(v6) => format!("{:x}:{:x}", v6.segments()[0], v6.segments()[1]),
    };
    Draw::of("networks", &block, "owner").pick(NETWORKS)
}

/// The announced network of an address, in CIDR notation.
pub fn announced(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => format!("{}.{}.0.0/16", v4.octets()[0], v4.octets()[1]),
        IpAddr::V6(v6) => format!("{:x}:{:x}::/32", v6.segments()[0], v6.segments()[1]),
    }
}

/// Whether a provider takes the address: not private, loopback, link-local, multicast, documentation or unspecified.
pub fn public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_documentation()
                || a == 0
                || a >= 224
                || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => public(IpAddr::V4(v4)),
            None => {
                let [first, second, ..] = v6.segments();
                (first & 0xe000) == 0x2000 && !(first == 0x2001 && second == 0xdb8)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_has_one_owner() {
        let owner_of = |text: &str| owner(text.parse().expect("address")).asn;
        assert_eq!(owner_of("45.9.1.1"), owner_of("45.9.200.7"));
    }

    #[test]
    fn addresses_of_no_interest_to_a_provider_are_not_public() {
        for text in [
            "10.0.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "192.0.2.1",
            "224.0.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fc00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!public(text.parse().expect("address")), "{text}");
        }
        for text in ["45.9.1.1", "8.8.8.8", "2a01:4f8::1", "2001:4860::8888"] {
            assert!(public(text.parse().expect("address")), "{text}");
        }
    }
}
