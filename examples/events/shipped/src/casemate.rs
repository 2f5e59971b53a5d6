//! This file carries one request from the platform to your function and the
//! answer back. It is yours: read it, change it, or leave it alone.
//!
//! A request arrives on standard input as one line of JSON, then the body; the
//! answer leaves on standard output in the same shape. What you write on standard
//! error (`eprintln!` does) is the function's log.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// What came in.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub id: String,
    pub method: String,
    pub path: String,                           // decoded
    pub query: String,                          // as sent, without "?"
    pub headers: BTreeMap<String, Vec<String>>, // lower-case names
    pub params: BTreeMap<String, String>,       // {name} parts of the route's path
    pub trigger: String,                        // http, invoke, …
    pub caller: String,                         // verified by the platform
    pub deadline: i64,                          // Unix milliseconds, 0 for none
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of a header, or "". Case does not matter.
    pub fn header(&self, name: &str) -> &str {
        let values = self.headers.get(&name.to_ascii_lowercase());
        values.and_then(|v| v.first()).map_or("", String::as_str)
    }
}

/// What goes out.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        let headers = vec![("content-type".into(), content_type.into())];
        Response {
            status,
            headers,
            body: body.into(),
        }
    }

    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response::new(status, "text/plain; charset=utf-8", body)
    }
}

/// Hands one request to `function` and writes its answer. Call it once, from main.
/// When the function fails, the error goes to the log and the caller gets a 502
/// that says nothing about it.
pub fn serve(function: fn(&Request) -> Result<Response, String>) {
    let done = read_request(&mut io::stdin().lock())
        .and_then(|request| function(&request))
        .and_then(|response| write_response(&mut io::stdout().lock(), &response));
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn read_request(input: &mut impl Read) -> Result<Request, String> {
    // Everything up to the first read happens once, at deployment.
    let mut bytes = Vec::with_capacity(64 << 10);
    input
        .read_to_end(&mut bytes)
        .map_err(|e| format!("reading the request: {e}"))?;
    let end = bytes
        .iter()
        .position(|&b| b == b'\n')
        .ok_or("reading the request: it has no head")?;
    let body = bytes.split_off(end + 1);
    let head =
        std::str::from_utf8(&bytes[..end]).map_err(|e| format!("reading the request: {e}"))?;
    let head = json::parse(head).ok_or("reading the request: its head is not JSON")?;

    let mut request = Request {
        body,
        ..Request::default()
    };
    for (key, value) in head.into_object() {
        match key.as_str() {
            "id" => request.id = value.into_string(),
            "method" => request.method = value.into_string(),
            "path" => request.path = value.into_string(),
            "query" => request.query = value.into_string(),
            "trigger" => request.trigger = value.into_string(),
            "caller" => request.caller = value.into_string(),
            "deadline" => request.deadline = value.into_number() as i64,
            "params" => {
                request.params = value
                    .into_object()
                    .into_iter()
                    .map(|(k, v)| (k, v.into_string()))
                    .collect();
            }
            "headers" => {
                for (name, values) in value.into_object() {
                    let values = values
                        .into_array()
                        .into_iter()
                        .map(json::Value::into_string)
                        .collect();
                    request.headers.insert(name, values);
                }
            }
            _ => {} // a later platform may say more
        }
    }
    Ok(request)
}

fn write_response(output: &mut impl Write, response: &Response) -> Result<(), String> {
    let mut bytes = Vec::with_capacity(response.body.len() + 256);
    bytes.extend_from_slice(b"{\"status\":");
    bytes.extend_from_slice(response.status.to_string().as_bytes());
    bytes.extend_from_slice(b",\"headers\":{");
    for (i, (name, value)) in response.headers.iter().enumerate() {
        if i > 0 {
            bytes.push(b',');
        }
        bytes.extend_from_slice(json::quote(name).as_bytes());
        bytes.push(b':');
        bytes.extend_from_slice(json::quote(value).as_bytes());
    }
    bytes.extend_from_slice(b"}}\n");
    bytes.extend_from_slice(&response.body);
    output
        .write_all(&bytes)
        .and_then(|()| output.flush())
        .map_err(|e| format!("writing the answer: {e}"))
}

/// As much of JSON (RFC 8259) as a request's head needs, so that a function starts
/// without dependencies. Add serde_json when your bodies are JSON.
pub mod json {
    #[derive(Clone, Debug, PartialEq)]
    pub enum Value {
        Null,
        Bool(bool),
        Number(f64),
        String(String),
        Array(Vec<Value>),
        Object(Vec<(String, Value)>),
    }

    impl Value {
        pub fn into_string(self) -> String {
            if let Value::String(s) = self {
                s
            } else {
                String::new()
            }
        }
        pub fn into_number(self) -> f64 {
            if let Value::Number(n) = self {
                n
            } else {
                0.0
            }
        }
        pub fn into_array(self) -> Vec<Value> {
            if let Value::Array(a) = self {
                a
            } else {
                Vec::new()
            }
        }
        pub fn into_object(self) -> Vec<(String, Value)> {
            if let Value::Object(o) = self {
                o
            } else {
                Vec::new()
            }
        }
    }

    const MAX_DEPTH: u32 = 32;

    /// Parses one value that fills the whole text.
    pub fn parse(text: &str) -> Option<Value> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        parser.space();
        (parser.at == text.len()).then(|| value)
    }

    /// Writes a string with its quotes.
    pub fn quote(s: &str) -> String {
        let mut out = String::with_capacity(s.len() + 2);
        out.push('"');
        for c in s.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
                c => out.push(c),
            }
        }
        out.push('"');
        out
    }

    struct Parser<'a> {
        text: &'a str,
        at: usize,
    }

    impl Parser<'_> {
        fn peek(&self) -> u8 {
            *self.text.as_bytes().get(self.at).unwrap_or(&0)
        }

        fn space(&mut self) {
            while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
                self.at += 1;
            }
        }

        fn take(&mut self, word: &str) -> Option<()> {
            self.space();
            self.text
                .get(self.at..)?
                .starts_with(word)
                .then(|| self.at += word.len())
        }

        fn value(&mut self, depth: u32) -> Option<Value> {
            if depth > MAX_DEPTH {
                return None;
            }
            self.space();
            match self.peek() {
                b'"' => self.string().map(Value::String),
                b'{' => {
                    let mut members = Vec::new();
                    self.list("{", "}", |p| {
                        p.space();
                        let key = p.string()?;
                        p.take(":")?;
                        members.push((key, p.value(depth + 1)?));
                        Some(())
                    })?;
                    Some(Value::Object(members))
                }
                b'[' => {
                    let mut elements = Vec::new();
                    self.list("[", "]", |p| {
                        elements.push(p.value(depth + 1)?);
                        Some(())
                    })?;
                    Some(Value::Array(elements))
                }
                b't' => self.take("true").map(|()| Value::Bool(true)),
                b'f' => self.take("false").map(|()| Value::Bool(false)),
                b'n' => self.take("null").map(|()| Value::Null),
                _ => {
                    let start = self.at;
                    while matches!(self.peek(), b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                        self.at += 1;
                    }
                    self.text[start..self.at].parse().ok().map(Value::Number)
                }
            }
        }

        fn list(
            &mut self,
            open: &str,
            close: &str,
            mut item: impl FnMut(&mut Self) -> Option<()>,
        ) -> Option<()> {
            self.take(open)?;
            if self.take(close).is_some() {
                return Some(());
            }
            loop {
                item(self)?;
                if self.take(close).is_some() {
                    return Some(());
                }
                self.take(",")?;
            }
        }

        fn string(&mut self) -> Option<String> {
            if self.peek() != b'"' {
                return None;
            }
            self.at += 1;
            let mut out = String::new();
            loop {
                let rest = self.text.get(self.at..)?;
                let plain = rest.bytes().position(|b| b == b'"' || b == b'\\')?;
                out.push_str(&rest[..plain]);
                self.at += plain + 1;
                if rest.as_bytes()[plain] == b'"' {
                    return Some(out);
                }
                out.push(self.escape()?);
            }
        }

        fn escape(&mut self) -> Option<char> {
            let c = self.peek();
            self.at += 1;
            Some(match c {
                b'"' | b'\\' | b'/' => c as char,
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let mut unit = self.hex()?;
                    if (0xd800..0xdc00).contains(&unit)
                        && self.text.get(self.at..)?.starts_with("\\u")
                    {
                        self.at += 2;
                        let low = self.hex()?;
                        let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                        unit = 0x10000 + ((unit - 0xd800) << 10) + low;
                    }
                    char::from_u32(unit).unwrap_or('\u{fffd}')
                }
                _ => return None,
            })
        }

        fn hex(&mut self) -> Option<u32> {
            let digits = self.text.get(self.at..self.at + 4)?;
            self.at += 4;
            digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| ())?;
            u32::from_str_radix(digits, 16).ok()
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn reads_what_a_head_holds() {
            let text = r#" {"a":["x","\u00e9\n\ud83d\ude00"], "b":{}, "c":-1.5e3,"d":null} "#;
            let members = parse(text).unwrap().into_object();
            assert_eq!(
                members[0].1,
                Value::Array(vec![
                    Value::String("x".into()),
                    Value::String("é\n😀".into())
                ])
            );
            assert_eq!(members[2].1, Value::Number(-1500.0));
        }

        #[test]
        fn refuses_what_is_not_json() {
            for text in [
                "",
                "{",
                "[1,]",
                "\"\\x\"",
                "\"\\u12",
                "{\"a\" 1}",
                "1 2",
                "nul",
                &"[".repeat(1000),
            ] {
                assert_eq!(parse(text), None, "{text}");
            }
        }
    }
}
