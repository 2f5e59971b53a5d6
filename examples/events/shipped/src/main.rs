//! Tells customers that a parcel is on its way. The carrier sends CloudEvents; their
//! attributes are headers, the data is the body. The platform says where an event came
//! from (ce-source); what the carrier called itself is ce-claimedsource.

mod casemate;
use casemate::{json, Request, Response};

fn main() {
    casemate::serve(notify);
}

fn notify(request: &Request) -> Result<Response, String> {
    let data = std::str::from_utf8(&request.body).map_err(|e| e.to_string())?;
    let parcel = json::parse(data)
        .map(json::Value::into_object)
        .and_then(|members| members.into_iter().find(|(name, _)| name == "parcel"))
        .map(|(_, value)| value.into_string())
        .ok_or("the data names no parcel")?;
    let kind = request.header("ce-type");
    let state = kind.rsplit('.').next().unwrap_or(kind);
    eprintln!("parcel {parcel} is {state}, says {}", request.header("ce-claimedsource"));
    Ok(Response::text(200, format!("{parcel} {state}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> Request {
        let mut r = Request { body: body.into(), ..Request::default() };
        r.headers.insert("ce-type".into(), vec!["com.example.parcel.shipped".into()]);
        r
    }

    #[test]
    fn says_what_became_of_a_parcel() {
        assert_eq!(notify(&request(r#"{"parcel":"p-1"}"#)).unwrap().body, b"p-1 shipped");
    }

    #[test]
    fn fails_without_a_parcel() {
        assert!(notify(&request("{}")).is_err());
    }
}
