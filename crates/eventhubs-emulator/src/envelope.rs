//! Sends messages that are already encoded through fe2o3-amqp, whose sender accepts only messages that it encodes itself.
//!
//! The log holds encoded messages. Decoding one for each receiver, only to have it encoded again, would be nearly half of the cost of a
//! delivery. So a delivery sends the encoded bytes inside another message, whose body is one binary value. This outer message is the
//! envelope. The connection's stream removes the envelope from each frame before it is written ([`super::stream`]).
//!
//! Nothing else that the broker sends looks like an envelope. Messages of the log begin with their annotations, and replies of services
//! begin with their properties. The body of an undecodable event is no binary value.

use std::ops::Range;

use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp_types::messaging::AmqpValue;
use serde::{Serialize, Serializer};

/// The first bytes of the two protocol headers, at the place where a frame has its size.
const PROTOCOL: &[u8] = b"AMQP";
const PROTOCOL_HEADER_BYTES: usize = 8;
const FRAME_HEADER_BYTES: usize = 8;
const AMQP_FRAME: u8 = 0;
/// Descriptor of a transfer: a described type whose descriptor is a small unsigned long.
const TRANSFER: &[u8] = &[0x00, 0x53, 0x14];
/// Descriptor of an AMQP value section.
const VALUE_SECTION: &[u8] = &[0x00, 0x53, 0x77];
const NULL: u8 = 0x40;
const LIST8: u8 = 0xc0;
const LIST32: u8 = 0xd0;
const BINARY8: u8 = 0xa0;
const BINARY32: u8 = 0xb0;

/// The bytes of an encoded message, serialized as a binary value.
#[derive(Debug)]
pub(super) struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Puts an encoded message into an envelope.
pub(super) fn seal(message: &[u8]) -> Sendable<AmqpValue<Bytes<'_>>> {
    Sendable::from(AmqpValue(Bytes(message)))
}

/// Removes the envelopes from the complete frames that begin at `start`. Returns where these frames end; an incomplete frame may follow.
pub(super) fn open(stream: &mut Vec<u8>, start: usize) -> usize {
    let mut whole = start;
    while let Some(length) = stream.get(whole..).and_then(unit) {
        let mut end = whole + length;
        if let Some(envelope) = stream.get(whole..end).and_then(envelope) {
            end -= envelope.len();
            stream.drain(whole + envelope.start..whole + envelope.end);
            if let (Some(size), Ok(new)) = (stream.get_mut(whole..whole + 4), u32::try_from(end - whole)) {
                size.copy_from_slice(&new.to_be_bytes());
            }
        }
        whole = end;
    }
    whole
}

/// The length in bytes of the frame or protocol header at the start of `bytes`. `None` if it is not complete.
fn unit(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<4>()?;
    let length = if head == PROTOCOL { PROTOCOL_HEADER_BYTES } else { size(*head)?.max(FRAME_HEADER_BYTES) };
    (bytes.len() >= length).then_some(length)
}

/// The range of the envelope in a frame, if it has one. Only the first transfer of a delivery can have one, and that one has a delivery id.
/// Later transfers carry content.
fn envelope(frame: &[u8]) -> Option<Range<usize>> {
    let (header, _) = frame.split_at_checked(FRAME_HEADER_BYTES)?;
    if header[5] != AMQP_FRAME {
        return None;
    }
    let transfer = frame.get(usize::from(header[4]) * 4..)?.strip_prefix(TRANSFER)?;
    let (fields, payload) = match *transfer.first()? {
        LIST8 => {
            let (fields, payload) = transfer.get(2..)?.split_at_checked(usize::from(*transfer.get(1)?))?;
            (fields.get(1..)?, payload)
        }
        LIST32 => {
            let (fields, payload) =
                transfer.get(5..)?.split_at_checked(size(*transfer.get(1..)?.first_chunk()?)?)?;
            (fields.get(4..)?, payload)
        }
        _ => return None,
    };
    let handle = match *fields.first()? {
        0x43 => 1,
        0x52 => 2,
        0x70 => 5,
        _ => return None,
    };
    if *fields.get(handle)? == NULL {
        return None;
    }
    let length = match *payload.strip_prefix(VALUE_SECTION)?.first()? {
        BINARY8 => VALUE_SECTION.len() + 2,
        BINARY32 => VALUE_SECTION.len() + 5,
        _ => return None,
    };
    let start = frame.len() - payload.len();
    (payload.len() >= length).then(|| start..start + length)
}

fn size(bytes: [u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame on channel 1 with this body.
    fn frame(kind: u8, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        let size = u32::try_from(FRAME_HEADER_BYTES + body.len()).unwrap();
        [&size.to_be_bytes()[..], &[2, kind, 0, 1], &body].concat()
    }

    /// A transfer on handle 5. The first one has delivery id 7; a later one has no delivery id.
    fn transfer(first: bool) -> Vec<u8> {
        let id: &[u8] = if first { &[0x52, 7] } else { &[NULL] };
        let fields = [&[0x52, 5], id].concat();
        let size = u8::try_from(fields.len() + 1).unwrap();
        [TRANSFER, &[LIST8, size, 2], &fields].concat()
    }

    fn long_transfer() -> Vec<u8> {
        let fields = [0x43, 0x70, 0, 0, 1, 0];
        [TRANSFER, &[LIST32, 0, 0, 0, 10, 0, 0, 0, 2], &fields].concat()
    }

    /// An envelope for `length` bytes of content, of which only `content` is present.
    fn sealed(length: u32, content: &[u8]) -> Vec<u8> {
        match u8::try_from(length) {
            Ok(length) => [VALUE_SECTION, &[BINARY8, length], content].concat(),
            Err(_) => [VALUE_SECTION, &[BINARY32], &length.to_be_bytes(), content].concat(),
        }
    }

    fn opened(stream: &[u8]) -> (Vec<u8>, usize) {
        let mut opened = stream.to_vec();
        let whole = open(&mut opened, 0);
        (opened, whole)
    }

    #[test]
    fn the_envelope_goes_and_the_content_stays_at_its_length() {
        let content = [b'x'; 300];
        for transfer in [transfer(true), long_transfer()] {
            for content in [&content[..10], &content[..]] {
                let envelope = sealed(content.len() as u32, content);
                let (seen, whole) = opened(&frame(AMQP_FRAME, &[&transfer, &envelope]));
                assert_eq!(seen, frame(AMQP_FRAME, &[&transfer, content]));
                assert_eq!(whole, seen.len());
            }
        }
    }

    #[test]
    fn the_later_frames_of_a_long_delivery_are_content_whatever_they_look_like() {
        let first = frame(AMQP_FRAME, &[&transfer(true), &sealed(70_000, b"begin")]);
        let later = frame(AMQP_FRAME, &[&transfer(false), &sealed(4, b"more")]);
        let (seen, _) = opened(&[first, later.clone()].concat());
        let begin = frame(AMQP_FRAME, &[&transfer(true), b"begin"]);
        assert_eq!(seen, [begin, later].concat());
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let envelope = sealed(3, b"abc");
        let flow: &[u8] = &[0x00, 0x53, 0x13, LIST8, 3, 2, 0x52, 5];
        let undecodable: &[u8] = &[0x00, 0x53, 0x77, 0x00, 0x44];
        let annotated: &[u8] = &[0x00, 0x53, 0x72, 0xc1, 1, 0];
        let stream = [
            b"AMQP\x03\x01\x00\x00".to_vec(),
            frame(1, &[&transfer(true), &envelope]),
            b"AMQP\x00\x01\x00\x00".to_vec(),
            frame(AMQP_FRAME, &[]),
            frame(AMQP_FRAME, &[flow, &envelope]),
            frame(AMQP_FRAME, &[&transfer(true), undecodable]),
            frame(AMQP_FRAME, &[&transfer(true), annotated]),
            frame(AMQP_FRAME, &[TRANSFER, &[LIST8, 200, 2, 0x52]]),
            frame(AMQP_FRAME, &[&transfer(true), VALUE_SECTION, &[BINARY32, 0]]),
        ]
        .concat();
        assert_eq!(opened(&stream), (stream.clone(), stream.len()));
    }

    #[test]
    fn what_is_not_whole_waits_for_its_rest() {
        let whole = frame(AMQP_FRAME, &[&transfer(true), &sealed(5, b"hello")]);
        let plain = frame(AMQP_FRAME, &[&transfer(true), b"hello"]);
        for cut in 0..whole.len() {
            let mut stream = whole.repeat(2);
            let rest = stream.split_off(whole.len() + cut);
            let end = open(&mut stream, 0);
            assert_eq!((&stream[..end], end), (&plain[..], plain.len()), "{cut}");
            stream.extend_from_slice(&rest);
            assert_eq!((open(&mut stream, end), &stream), (2 * plain.len(), &plain.repeat(2)), "{cut}");
        }
    }
}
