use super::*;

fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter().cloned();
    pairs
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .collect()
}

#[test]
fn pages_are_let_in_by_the_rule_of_cors_and_those_of_the_node_itself() {
    let cors = |text: &str| CorsOrigin::try_from(text.to_owned()).unwrap();
    let from = |origin| {
        headers(&[
            (header::HOST, "node.example:8080"),
            (header::ORIGIN, origin),
        ])
    };
    let program = headers(&[(header::HOST, "node.example:8080")]);
    for (text, allowed, refused) in [
        ("*", vec!["https://a.example", "null"], vec![]),
        (
            "https://a.example",
            vec!["https://a.example", "http://node.example:8080"],
            vec!["https://b.example", "http://a.example", "null"],
        ),
        (
            "",
            vec!["http://node.example:8080", "https://node.example:8080"],
            vec!["https://a.example", "http://node.example", "null", ""],
        ),
    ] {
        assert!(is_allowed_origin(&cors(text), &program), "{text}");
        for origin in allowed {
            assert!(
                is_allowed_origin(&cors(text), &from(origin)),
                "{text} {origin}"
            );
        }
        for origin in refused {
            assert!(
                !is_allowed_origin(&cors(text), &from(origin)),
                "{text} {origin}"
            );
        }
    }
    let without_host = headers(&[(header::ORIGIN, "http://node.example:8080")]);
    assert!(!is_allowed_origin(&cors(""), &without_host));
}
