//! HTTP/1.1 by hand: bytes go out as they are written, and what comes in is read as strictly as any peer could.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// One end of a connection.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    /// Read and not yet taken.
    buffer: Vec<u8>,
}

/// Whatever bytes go through.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A message that was read whole.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The request line or the status line.
    pub(crate) start: String,
    /// In order, with the names as they were written.
    pub(crate) fields: Vec<(String, String)>,
    /// Decoded.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Exactly what was read.
    pub(crate) raw: Vec<u8>,
}

/// Why bytes are not a message that everybody reads alike.
#[derive(Debug, Clone)]
pub(crate) struct NotStrict(pub(crate) String);

type Fields = Vec<(String, String)>;

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

// === impl Wire ===

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Over any other stream.
    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Writes these bytes. A peer that has closed is found out by the next read.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The same, when it matters whether the peer still takes them.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.unwrap()
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next request; `None`: the peer closed instead.
    pub(crate) async fn request(&mut self) -> Result<Option<Message>, NotStrict> {
        let Some((start, fields, mut raw)) = self.head().await? else { return Ok(None) };
        request_line(&start)?;
        if all(&fields, "host").count() != 1 {
            return Err(NotStrict(format!("not one Host: {fields:?}")));
        }
        let framing = framing(&fields)?.unwrap_or(Framing::Length(0));
        let (body, trailers) = self.body(framing, &mut raw).await?;
        Ok(Some(Message { start, fields, body, trailers, raw }))
    }

    /// The next response, an interim one too.
    ///
    /// # Panics
    /// When there is none, or it is not strict HTTP.
    pub(crate) async fn response(&mut self) -> Message {
        self.response_to("GET").await.unwrap()
    }

    /// The next response, to a request by that method.
    pub(crate) async fn response_to(&mut self, method: &str) -> Result<Message, NotStrict> {
        let mut message = self.response_head().await?;
        let status = message.status();
        let framing = if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            Framing::Length(0)
        } else {
            framing(&message.fields)?.unwrap_or(Framing::UntilClose)
        };
        (message.body, message.trailers) = self.body(framing, &mut message.raw).await?;
        Ok(message)
    }

    /// The head of the next response; its body stays where it is.
    pub(crate) async fn response_head(&mut self) -> Result<Message, NotStrict> {
        let head = self.head().await?.ok_or_else(|| NotStrict("cut in a connection: no answer".to_owned()))?;
        let (start, fields, raw) = head;
        if !start.starts_with("HTTP/1.1 ") && !start.starts_with("HTTP/1.0 ") {
            return Err(NotStrict(format!("no status line: {start:?}")));
        }
        Ok(Message { start, fields, body: Vec::new(), trailers: Vec::new(), raw })
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request).await;
        self.response().await
    }

    /// One chunk of a chunked body; empty at its end, whose trailers stay where they are.
    pub(crate) async fn chunk(&mut self) -> Result<Vec<u8>, NotStrict> {
        self.one_chunk(&mut Vec::new()).await
    }

    /// Waits until the peer says something or closes, however long that takes.
    pub(crate) async fn wait(&mut self) {
        if self.buffer.is_empty() {
            let _ = self.stream.read_buf(&mut self.buffer).await;
        }
    }

    /// Everything up to the close. A reset counts as one.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Everything up to the close, or up to these bytes when they come first.
    pub(crate) async fn until_closed_or(&mut self, end: &[u8]) -> Vec<u8> {
        while !self.buffer.ends_with(end) && self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the peer has closed without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.until_closed().await.is_empty()
    }

    async fn head(&mut self) -> Result<Option<(String, Fields, Vec<u8>)>, NotStrict> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(self.cut("head"));
            }
        };
        let raw: Vec<u8> = self.buffer.drain(..end).collect();
        let text = raw.iter().map(|&byte| char::from(byte)).collect::<String>();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(field).collect::<Result<_, _>>()?;
        Ok(Some((start, fields, raw)))
    }

    async fn body(&mut self, framing: Framing, raw: &mut Vec<u8>) -> Result<(Vec<u8>, Fields), NotStrict> {
        match framing {
            Framing::Length(length) => {
                let body = self.take(length).await?;
                raw.extend_from_slice(&body);
                Ok((body, Vec::new()))
            }
            Framing::UntilClose => {
                let body = self.until_closed().await;
                raw.extend_from_slice(&body);
                Ok((body, Vec::new()))
            }
            Framing::Chunked => {
                let mut body = Vec::new();
                loop {
                    let chunk = self.one_chunk(raw).await?;
                    if chunk.is_empty() {
                        break;
                    }
                    body.extend(chunk);
                }
                let mut trailers = Vec::new();
                loop {
                    let line = self.line(raw).await?;
                    if line.is_empty() {
                        return Ok((body, trailers));
                    }
                    trailers.push(field(&line)?);
                }
            }
        }
    }

    async fn one_chunk(&mut self, raw: &mut Vec<u8>) -> Result<Vec<u8>, NotStrict> {
        let line = self.line(raw).await?;
        if line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotStrict(format!("chunk size {line:?}")));
        }
        let size = usize::from_str_radix(&line, 16).map_err(|_| NotStrict(format!("chunk size {line:?}")))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let chunk = self.take(size).await?;
        raw.extend_from_slice(&chunk);
        let end = self.line(raw).await?;
        if end.is_empty() { Ok(chunk) } else { Err(NotStrict(format!("after a chunk: {end:?}"))) }
    }

    async fn line(&mut self, raw: &mut Vec<u8>) -> Result<String, NotStrict> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at + 2;
            }
            if !self.more().await {
                return Err(self.cut("line"));
            }
        };
        let line: Vec<u8> = self.buffer.drain(..end).collect();
        raw.extend_from_slice(&line);
        Ok(line[..end - 2].iter().map(|&byte| char::from(byte)).collect())
    }

    /// So many bytes.
    pub(crate) async fn take(&mut self, length: usize) -> Result<Vec<u8>, NotStrict> {
        while self.buffer.len() < length {
            if !self.more().await {
                return Err(self.cut("body"));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads on; `false`: there is no more.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("the peer says nothing"), Ok(count) if count > 0)
    }

    fn cut(&self, what: &str) -> NotStrict {
        NotStrict(format!("cut in a {what} after {:?}", String::from_utf8_lossy(&self.buffer)))
    }
}

fn find(text: &[u8], sought: &[u8]) -> Option<usize> {
    text.windows(sought.len()).position(|window| window == sought)
}

fn field(line: &str) -> Result<(String, String), NotStrict> {
    let bad = || NotStrict(format!("header line {line:?}"));
    let (name, value) = line.split_once(':').ok_or_else(bad)?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(bad());
    }
    if value.chars().any(|c| matches!(c, '\r' | '\n' | '\0')) {
        return Err(bad());
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

fn request_line(line: &str) -> Result<(), NotStrict> {
    let bad = || NotStrict(format!("request line {line:?}"));
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(bad()) };
    let visible = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || !c.is_ascii());
    if visible(method) && visible(target) && (target.starts_with('/') || target == "*") { Ok(()) } else { Err(bad()) }
}

fn all<'a>(fields: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    fields.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// One `Content-Length` in its shortest form, or one `Transfer-Encoding: chunked`, or neither; never both.
fn framing(fields: &[(String, String)]) -> Result<Option<Framing>, NotStrict> {
    let (lengths, codings): (Vec<_>, Vec<_>) =
        (all(fields, "content-length").collect(), all(fields, "transfer-encoding").collect());
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([], ["chunked"]) => Ok(Some(Framing::Chunked)),
        ([length], []) => match length.parse::<usize>() {
            Ok(parsed) if parsed.to_string() == **length => Ok(Some(Framing::Length(parsed))),
            _ => Err(NotStrict(format!("Content-Length {length:?}"))),
        },
        _ => Err(NotStrict(format!("framing {lengths:?} {codings:?}"))),
    }
}

// === impl NotStrict, Message ===

impl NotStrict {
    /// Whether the peer broke off, and nothing else was wrong.
    pub(crate) fn is_cut(&self) -> bool {
        self.0.starts_with("cut in a ")
    }
}

impl Message {
    /// Every value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        all(&self.fields, name).collect()
    }

    /// A header's one value.
    ///
    /// # Panics
    /// When there are several.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "several {name}: {values:?}");
        values.first().copied()
    }

    /// A response's status.
    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap()
    }

    /// Status and `x-mintgate-error`; the code is empty for an upstream's answer.
    pub(crate) fn outcome(&self) -> (u16, &str) {
        (self.status(), self.one("x-mintgate-error").unwrap_or_default())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}
