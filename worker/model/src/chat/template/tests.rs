//! What templates render, and where they are stopped.

mod bounds;

use super::*;

fn render(source: &str) -> Result<String> {
    let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    let turns = [Turn::system("S"), Turn::user("U <&> \u{fc}"), Turn::assistant("A")];
    Template::new(source, Path::new("chat_template.jinja"), special)?.render(&turns, true)
}

/// Right sides are what transformers 5.17's `render_jinja_template` gives (the date's is
/// Python's).
#[test]
fn what_transformers_renders() {
    for (source, want) in [
        ("{{ bos_token }}{{ eos_token }}{{ tools is none }}", "<s>True"),
        (
            "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
            "SU <&> \u{fc}A",
        ),
        ("a \n{%- generation -%}  b{%- endgeneration %} c", "ab c"),
        (
            "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
            "system",
        ),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.role }},{% endfor %}",
            "system,assistant,",
        ),
        ("{{ messages[1] | tojson }}", "{\"role\": \"user\", \"content\": \"U <&> \u{fc}\"}"),
        ("{{ messages[1].content | tojson(ensure_ascii=true) }}", "\"U <&> \\u00fc\""),
        (
            "{{ {'b': [1, 2.5], 'a': none} | tojson(indent=2, sort_keys=true) }}",
            "{\n  \"a\": null,\n  \"b\": [\n    1,\n    2.5\n  ]\n}",
        ),
        (
            "{{ {'b': [1, true], 'a': {}} | tojson(separators=(',', ':')) }}",
            "{\"b\":[1,true],\"a\":{}}",
        ),
        ("{{ strftime_now('%d %b %Y, %A %H:%M') }}", "05 Aug 2025, Tuesday 00:00"),
        ("{{ true }} {{ none }} {{ 1.0 }} {{ '%' }}", "True None 1.0 %"),
        (
            "{% set ns = namespace(x=0) %}{% for m in messages %}{% set ns.x = ns.x + 1 %}{% endfor %}{{ ns.x }}",
            "3",
        ),
        (
            "{{ messages[-1].content.strip().upper() }}{{ messages[1:] | length }}{{ messages[::-1][0].role }}",
            "A2assistant",
        ),
    ] {
        assert_eq!(render(source).unwrap(), want, "{source}");
    }
}

#[test]
fn an_error_names_the_file_and_quotes_no_message() {
    let broken = render("{% for %}").unwrap_err().to_string();
    assert!(
        broken.contains("chat_template.jinja") && broken.contains("does not parse"),
        "{broken}"
    );
    let refused = render("\n{{ raise_exception('no system role') }}").unwrap_err().to_string();
    assert!(
        refused.contains("chat_template.jinja") && refused.contains("no system role"),
        "{refused}"
    );
    assert!(refused.contains("line 2"), "{refused}");
    assert!(render("{{ strftime_now('%Q') }}").is_err());
}
