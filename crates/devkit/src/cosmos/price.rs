//! The request units of requests: a model of Azure Cosmos DB's charges, from the figures that Microsoft publishes.
//!
//! | subject | source |
//! |---|---|
//! | reads and writes by size; 0.2 request units per indexed term; a replace removes and inserts the document and the terms that were modified | "Understand request units consumption", learn.microsoft.com/azure/cosmos-db/understand-request-unit-consumption, 2026-04 |
//! | which paths of a document are indexed | "Indexing policies", learn.microsoft.com/azure/cosmos-db/index-policy, 2025-05 |
//! | queries: a scan of 399,998,938 bytes in 60,951 documents for 4,059.95 request units; one document found by index for 2.98 | "Troubleshoot query issues", learn.microsoft.com/azure/cosmos-db/nosql/troubleshoot-query-performance, 2022-04 |
//!
//! Microsoft calls its figures illustrative, and the same applies here: use them for comparisons. An account reports what it really
//! charges. The model adds some assumptions. Between two sizes, the price is interpolated linearly. A term is a distinct pair of path and
//! scalar value. `_ts`, which is in every index, is not counted. A query costs what loading its documents costs, and the lookup once per
//! page and physical partition. If a filter uses a path that is not indexed, all documents in the scope are loaded. The model does not
//! price patches, batches, feeds, and failed requests.

mod ledger;
mod policy;
mod query;
mod throughput;

pub(super) use self::{
    ledger::{Asked, Ledger},
    policy::Policy,
    throughput::Throughput,
};

/// Size of a document in KiB, and the request units to read and to write it without an index.
const BY_SIZE: [(f64, f64, f64); 12] = [
    (1.0, 1.00, 4.95),
    (2.0, 1.04, 6.29),
    (4.0, 1.14, 6.67),
    (8.0, 1.33, 7.04),
    (16.0, 1.67, 9.52),
    (32.0, 2.19, 11.23),
    (64.0, 4.76, 22.67),
    (128.0, 9.95, 48.19),
    (256.0, 20.28, 98.29),
    (512.0, 40.95, 184.57),
    (1_024.0, 145.90, 625.00),
    (2_048.0, 291.80, 1_250.00),
];

/// Request units for a term that is added to or removed from the index.
const PER_TERM: f64 = 0.2;

/// The published scan: request units, bytes, documents.
const SCAN: (f64, f64, f64) = (4_059.95, 399_998_938.0, 60_951.0);
/// Request units of the published query that finds one of these documents by index.
const SEEK: f64 = 2.98;
const LOAD_PER_BYTE: f64 = SCAN.0 / SCAN.1;
const LOOKUP: f64 = SEEK - SCAN.0 / SCAN.2;

/// Request units of a point read.
pub fn read(bytes: usize) -> f64 {
    by_size(bytes, |(_, read, _)| read)
}

/// Request units of a create or a delete. `terms` is the number of terms that are added to or removed from the index.
pub fn create(bytes: usize, terms: usize) -> f64 {
    by_size(bytes, |(_, _, write)| write) + PER_TERM * terms as f64
}

/// Request units of a replace: those of removing the old document and of inserting the new one, with the terms that only one of them has.
pub fn replace(old_bytes: usize, new_bytes: usize, removed: usize, added: usize) -> f64 {
    create(old_bytes, removed) + create(new_bytes, added)
}

/// Request units of a page of a query that loads this many bytes of documents.
pub fn query(bytes: f64) -> f64 {
    LOOKUP + LOAD_PER_BYTE * bytes
}

fn by_size(bytes: usize, price: impl Fn((f64, f64, f64)) -> f64) -> f64 {
    let size = bytes as f64 / 1_024.0;
    let above = BY_SIZE.iter().position(|(kib, ..)| *kib >= size).unwrap_or(BY_SIZE.len() - 1);
    let (to, from) = (BY_SIZE[above], BY_SIZE[above.saturating_sub(1)]);
    if to.0 <= size || above == 0 {
        return price(to);
    }
    price(from) + (price(to) - price(from)) * (size - from.0) / (to.0 - from.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, published: f64) {
        assert!((found - published).abs() < 0.005 * published, "{found} instead of {published}");
    }

    #[test]
    fn the_published_examples_come_out() {
        near(read(1 << 10), 1.0);
        near(read(8 << 10), 1.33);
        near(create(32 << 10, 0), 11.23);
        near(create(1 << 10, 10), 6.95); // published with 5.0 for 4.95: 7
        near(replace(1 << 10, 1 << 10, 2, 2), 10.7); // the same: 10.8
        near(query(SCAN.1), 4_059.95 + LOOKUP);
        near(query(SCAN.1 / SCAN.2), 2.98);
    }

    #[test]
    fn between_sizes_it_is_a_straight_line_and_beyond_them_it_ends() {
        near(create(3 << 10, 0), 6.48);
        near(create(100, 0), 4.95);
        near(read(4 << 20), 291.8);
        let mut before = 0.0;
        for kib in 1..2_100 {
            let price = create(kib << 10, 0);
            assert!(price >= before, "{kib} KiB");
            before = price;
        }
    }
}
