//! Addresses of links, as the official clients write them.

/// What a link is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// `$cbs` (claims-based security): receives tokens.
    TokenService,
    /// `$management`: answers requests for the properties of hubs and partitions.
    Management,
    /// A hub, to send to: the broker chooses the partition.
    Hub {
        /// Name as the client wrote it.
        hub: String,
    },
    /// One partition, to send to.
    Partition {
        /// Name as the client wrote it.
        hub: String,
        /// Partition id as the client wrote it.
        partition: String,
    },
    /// One partition of a consumer group, to receive from.
    Subscription {
        /// Name as the client wrote it.
        hub: String,
        /// Consumer group as the client wrote it.
        group: String,
        /// Partition id as the client wrote it.
        partition: String,
    },
}

impl Node {
    /// Parses a path or a whole URL. The host of a URL is ignored: it is the name of the namespace that the
    /// client was given.
    pub(super) fn parse(address: &str) -> Option<Self> {
        let path = match address.split_once("://") {
            Some((_scheme, rest)) => rest.split_once('/')?.1,
            None => address,
        };
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match segments.as_slice() {
            ["$cbs"] => Some(Self::TokenService),
            ["$management"] | [_, "$management"] => Some(Self::Management),
            [hub] if !hub.is_empty() => Some(Self::Hub { hub: (*hub).to_owned() }),
            [hub, partitions, partition] if partitions.eq_ignore_ascii_case("partitions") => {
                Some(Self::Partition { hub: (*hub).to_owned(), partition: (*partition).to_owned() })
            }
            [hub, groups, group, partitions, partition]
                if groups.eq_ignore_ascii_case("consumergroups")
                    && partitions.eq_ignore_ascii_case("partitions") =>
            {
                Some(Self::Subscription {
                    hub: (*hub).to_owned(),
                    group: (*group).to_owned(),
                    partition: (*partition).to_owned(),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Node;

    #[test]
    fn urls_and_paths_name_the_same_node() {
        let subscription = Node::Subscription {
            hub: "twins".to_owned(),
            group: "$Default".to_owned(),
            partition: "3".to_owned(),
        };
        for address in [
            "amqps://ns.servicebus.windows.net/twins/ConsumerGroups/$Default/Partitions/3",
            "twins/ConsumerGroups/$Default/Partitions/3",
        ] {
            assert_eq!(Node::parse(address).as_ref(), Some(&subscription), "{address}");
        }
        assert_eq!(Node::parse("amqps://host/twins"), Some(Node::Hub { hub: "twins".to_owned() }));
        assert_eq!(
            Node::parse("twins/Partitions/0"),
            Some(Node::Partition { hub: "twins".to_owned(), partition: "0".to_owned() })
        );
        assert_eq!(Node::parse("$cbs"), Some(Node::TokenService));
        assert_eq!(Node::parse("$management"), Some(Node::Management));
    }

    #[test]
    fn anything_else_is_no_node() {
        for address in ["", "/", "amqps://host", "amqps://host/", "twins/Partitions", "a/b/c/d/e", "a/b"] {
            assert_eq!(Node::parse(address), None, "{address}");
        }
    }
}
