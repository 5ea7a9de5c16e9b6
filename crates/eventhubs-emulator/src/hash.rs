//! Assigns a partition key to a partition, as the buffered producers of the official clients do.
//!
//! The function is Bob Jenkins' lookup3 (public domain) over the key's UTF-8 bytes, with both seeds 0. The two
//! halves are combined by exclusive or and truncated to 16 bits. It is not documented whether the service uses
//! the same function. For clients that leave the choice to the broker, any stable function would do.

/// Returns the partition of a key, in `0..partitions`.
pub(super) fn partition(key: &str, partitions: u16) -> u16 {
    let remainder = i32::from(fold(key.as_bytes())) % i32::from(partitions);
    u16::try_from(remainder.unsigned_abs()).unwrap_or(0)
}

fn fold(key: &[u8]) -> i16 {
    let (b, c) = lookup3(key);
    (b ^ c) as i16
}

fn lookup3(key: &[u8]) -> (u32, u32) {
    let initial = 0xdead_beef_u32.wrapping_add(key.len() as u32);
    let (mut a, mut b, mut c) = (initial, initial, initial);
    let mut rest = key;
    // The last block, even a full one, goes through the final mix instead.
    while rest.len() > 12 {
        let (block, tail) = rest.split_at(12);
        (a, b, c) = add(block, (a, b, c));
        (a, b, c) = mix(a, b, c);
        rest = tail;
    }
    if !rest.is_empty() {
        (a, b, c) = add(rest, (a, b, c));
        (b, c) = finish(a, b, c);
    }
    (b, c)
}

fn add(block: &[u8], (a, b, c): (u32, u32, u32)) -> (u32, u32, u32) {
    let word = |start: usize| {
        (0..4).fold(0_u32, |word, index| {
            let byte = block.get(start + index).copied().unwrap_or(0);
            word | u32::from(byte) << (8 * index)
        })
    };
    (a.wrapping_add(word(0)), b.wrapping_add(word(4)), c.wrapping_add(word(8)))
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

fn finish(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32) {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    (b, c)
}
