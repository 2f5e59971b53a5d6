mod casemate;

use casemate::{Request, Response};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Question {
    name: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    hello: &'a str,
}

fn main() {
    casemate::serve(hello);
}

/// Answers {"name":"Ada"} with {"hello":"Ada"}.
fn hello(request: &Request) -> Result<Response, String> {
    let Ok(question) = serde_json::from_slice::<Question>(&request.body) else {
        return Ok(Response::new(400, "application/json", r#"{"error":"the body is not JSON"}"#));
    };
    let answer = serde_json::to_vec(&Answer { hello: &question.name }).map_err(|e| e.to_string())?;
    Ok(Response::new(200, "application/json", answer))
}
