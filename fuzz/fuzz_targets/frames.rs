//! Bytes that the local broker sends: removing envelopes never panics and never adds bytes, and the result is the same wherever the stream
//! is cut.
#![no_main]

use eventhubs_emulator::fuzzing::open;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [cut, data @ ..] = data else { return };
    let mut whole = data.to_vec();
    let end = open(&mut whole, 0);
    assert!(end <= whole.len() && whole.len() <= data.len());

    let cut = usize::from(*cut).min(data.len());
    let mut stream = data[..cut].to_vec();
    let between = open(&mut stream, 0);
    stream.extend_from_slice(&data[cut..]);
    let again = open(&mut stream, between);
    assert_eq!((again, stream), (end, whole));
});
