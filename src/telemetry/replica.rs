//! The name of this process among the replicas. Leases, the status page and each line of the log use it.

use std::sync::LazyLock;

static NAME: LazyLock<String> = LazyLock::new(|| {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    named(&host, rand::random())
});

/// The host's name, for people, and enough random characters to be unique. Constant while the process lives.
pub fn replica() -> &'static str {
    &NAME
}

/// Characters that need no quoting anywhere: neither in the metadata of a blob nor in a line of text.
fn named(host: &str, chance: u64) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
    let host: String = host.chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
    let host = if host.is_empty() { env!("CARGO_PKG_NAME") } else { &host };
    format!("{host}-{chance:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_hosts_with_chance_and_needs_no_quotes() {
        assert_eq!(named("twinsync-0", 255), "twinsync-0-00000000000000ff");
        assert_eq!(named("", 1), "twinsync-0000000000000001");
        assert_eq!(named("a b\"ü", 1), "a-b---0000000000000001");
        assert_eq!(replica(), replica());
    }
}
