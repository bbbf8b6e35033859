//! The engines whose verdicts stand in VirusTotal's reports.

/// Their names, as they are keys of `last_analysis_results`.
#[rustfmt::skip]
pub const ENGINES: &[&str] = &[
    "Bkav", "Lionic", "Elastic", "MicroWorld-eScan", "ClamAV", "CTX", "CAT-QuickHeal", "Skyhigh", "ALYac",
    "Malwarebytes", "Zillya", "Sangfor", "CrowdStrike", "Alibaba", "K7GW", "K7AntiVirus", "Arcabit", "Baidu",
    "VirIT", "Symantec", "ESET-NOD32", "TrendMicro-HouseCall", "Avast", "Cynet", "Kaspersky", "BitDefender",
    "NANO-Antivirus", "ViRobot", "Rising", "Emsisoft", "F-Secure", "DrWeb", "VIPRE", "TrendMicro", "CMC",
    "Sophos", "huorong", "Jiangmin", "Google", "Avira", "Antiy-AVL", "Kingsoft", "Gridinsoft", "Xcitium",
    "Microsoft", "ZoneAlarm", "GData", "Varist", "AhnLab-V3", "Acronis", "McAfeeD", "TACHYON", "VBA32",
    "Zoner", "Tencent", "Yandex", "Ikarus", "MaxSecure", "Fortinet", "AVG", "Panda", "DeepInstinct",
    "alibabacloud", "SUPERAntiSpyware", "Trapmine", "tehtris", "Trustlook", "Webroot", "Cylance", "APEX",
    "SentinelOne", "Paloalto",
];
