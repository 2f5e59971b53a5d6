mod casemate;

use casemate::{Request, Response};
use pulldown_cmark::{html, CowStr, Event, Options, Parser, Tag, TagEnd};

fn main() {
    casemate::serve(render);
}

/// Answers Markdown with a whole HTML page.
fn render(request: &Request) -> Result<Response, String> {
    let Ok(markdown) = std::str::from_utf8(&request.body) else {
        return Ok(Response::text(400, "the body is not UTF-8\n"));
    };
    let mut response = Response::new(200, "text/html; charset=utf-8", page(markdown));
    // Should a script ever slip through, a browser will not run it.
    let policy = "default-src 'none'; img-src https:; style-src 'unsafe-inline'";
    response
        .headers
        .push(("content-security-policy".into(), policy.into()));
    Ok(response)
}

fn page(markdown: &str) -> String {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_FOOTNOTES;
    let events: Vec<Event> = Parser::new_ext(markdown, options).map(harmless).collect();

    let mut out = String::with_capacity(2 * markdown.len() + 256);
    out.push_str("<!doctype html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n<title>");
    push_escaped(&mut out, &title(&events));
    out.push_str("</title>\n</head>\n<body>\n");
    html::push_html(&mut out, events.into_iter());
    out.push_str("</body>\n</html>\n");
    out
}

/// The writer is not trusted: HTML in the Markdown becomes visible text, and links
/// lead nowhere but to the web, to mail or within the page.
fn harmless(event: Event) -> Event {
    match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Link {
            link_type,
            dest_url: safe(dest_url),
            title,
            id,
        }),
        Event::Start(Tag::Image {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Image {
            link_type,
            dest_url: safe(dest_url),
            title,
            id,
        }),
        other => other,
    }
}

fn safe(url: CowStr) -> CowStr {
    let scheme = url
        .split_once(':')
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        None | Some("http" | "https" | "mailto") => url,
        Some(path) if path.contains(['/', '?', '#']) => url, // a colon after the path began
        Some(_) => "#".into(),
    }
}

/// The text of the first heading.
fn title(events: &[Event]) -> String {
    let mut title = String::new();
    let mut inside = false;
    for event in events {
        match event {
            Event::Start(Tag::Heading { .. }) => inside = true,
            Event::End(TagEnd::Heading(_)) => break,
            Event::Text(text) | Event::Code(text) if inside => title.push_str(text),
            _ => {}
        }
    }
    title
}

fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_a_page_titled_by_its_first_heading() {
        let html = page("# On *ramparts* & walls\n\n| a | b |\n|---|---|\n| 1 | 2 |\n");
        assert!(
            html.contains("<title>On ramparts &amp; walls</title>"),
            "{html}"
        );
        assert!(
            html.contains("<h1>On <em>ramparts</em> &amp; walls</h1>"),
            "{html}"
        );
        assert!(html.contains("<td>1</td><td>2</td>"), "{html}");
    }

    #[test]
    fn html_in_the_markdown_becomes_text() {
        for attack in [
            "<script>x</script>",
            "a <img src=x onerror=x> b",
            "# <script>x</script>",
            "<!-- <b> -->",
        ] {
            let html = page(attack);
            let body = html.split_once("<title>").unwrap().1;
            for tag in ["<script", "<img", "<!--"] {
                assert!(!body.contains(tag), "{attack}: {html}");
            }
        }
    }

    #[test]
    fn links_to_scripts_lead_nowhere() {
        for url in [
            "javascript:x",
            "JaVaScRiPt:x",
            "data:text/html,x",
            "vbscript:x",
            "<java\tscript:x>",
            "&#106;avascript:x",
        ] {
            for form in [
                format!("[a]({url})"),
                format!("![a]({url})"),
                format!("[a]\n\n[a]: {url}"),
            ] {
                let html = page(&form).to_lowercase();
                assert!(
                    !html.contains("script:")
                        || !html.contains("href=\"") && !html.contains("src=\""),
                    "{form}: {html}"
                );
                assert!(!html.contains("\"data:"), "{form}: {html}");
            }
        }
        for url in [
            "https://example.com/a:b",
            "/a:b",
            "#part",
            "mailto:a@example.com",
            "a",
        ] {
            assert!(
                page(&format!("[a]({url})")).contains(&format!("href=\"{url}\"")),
                "{url}"
            );
        }
    }
}
