//! Behaviour of document servers, over a real socket on this machine.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// Serves one request with these bytes, repeatedly if `endless`. Returns the address.
async fn server(answer: String, endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        // The client may have read enough before the end.
        let _ = stream.write_all(answer.as_bytes()).await;
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        while endless && stream.write_all(chunk.as_bytes()).await.is_ok() {}
    });
    format!("http://{address}/keys")
}

async fn get(answer: &str, endless: bool) -> Result<Vec<u8>, FetchError> {
    let url = server(answer.to_owned(), endless).await;
    Http::new().unwrap().get(&url).await
}

#[tokio::test]
async fn the_whole_body_of_a_200_is_what_is_fetched() {
    let found = get("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}", false).await;
    assert_eq!(found, Ok(b"{\"keys\":[]}".to_vec()));
    let found =
        get("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", false)
            .await;
    assert_eq!(found, Ok(b"{}".to_vec()));
}

#[tokio::test]
async fn anything_else_is_none() {
    let found = get("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", false).await;
    assert_eq!(found, Err(FetchError::Status(503)));
    let moved = "HTTP/1.1 302 Found\r\nlocation: https://evil.example/keys\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(get(moved, false).await, Err(FetchError::Status(302)));
    for broken in ["HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{", "nonsense", ""] {
        let found = get(broken, false).await;
        assert!(matches!(found, Err(FetchError::Transport(_))), "{broken}: {found:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let said = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MOST_BYTES + 1);
    assert_eq!(get(&said, false).await, Err(FetchError::TooLarge));
    // Without a stated length, the received length decides.
    let chunked = |length: usize| {
        let body = " ".repeat(length);
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
    };
    assert_eq!(get(&chunked(MOST_BYTES), false).await.map(|body| body.len()), Ok(MOST_BYTES));
    assert_eq!(get(&chunked(MOST_BYTES + 1), false).await, Err(FetchError::TooLarge));
    let endless = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(get(endless, true).await, Err(FetchError::TooLarge));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_without_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let found = Http::new().unwrap().get(&format!("http://{address}/keys")).await;
    let Err(FetchError::Transport(text)) = found else { panic!("{found:?}") };
    assert!(text.contains("refused") && !text.contains("/keys"), "{text}");
}
