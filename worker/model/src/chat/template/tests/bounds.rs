//! Templates without an end, or with one that is far away, are stopped; those in use are not.

use super::*;
use std::time::{Duration, Instant};

/// The longest that a refusal may take here, where tests share two processors.
const DEADLINE: Duration = Duration::from_secs(60);

fn refusal(source: &str) -> String {
    let start = Instant::now();
    let reason = match render(source) {
        Err(ModelError::Template { reason, .. }) => reason,
        Err(other) => panic!("{source}: {other}"),
        Ok(text) => panic!("{source}: {} bytes", text.len()),
    };
    assert!(start.elapsed() < DEADLINE, "{source}: {:?}", start.elapsed());
    reason
}

/// A loop over a million entries, which the engine would otherwise run.
fn long(body: &str) -> String {
    format!(
        "{{% set ns = namespace(x='ab', l=[1]) %}}{{% for i in range(1000) %}}{{% for j in range(1000) %}}{body}\
         {{% endfor %}}{{% endfor %}}"
    )
}

#[test]
fn steps_are_counted() {
    for source in [
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}".to_owned(),
        long("{% if i > j %}{% endif %}{% if j > i %}{% endif %}"),
        "{% set l = range(9)|list %}{% for i in l recursive %}{% if loop.depth < 20 %}{{ loop(l) }}{% endif %}{% endfor %}"
            .to_owned(),
    ] {
        assert_eq!(refusal(&source), "it does not end within 4000000 steps");
    }
}

#[test]
fn bytes_are_counted_before_they_are_made() {
    let grown = |step: &str| {
        format!(
            "{{% set ns = namespace(x='xx', l=[1]) %}}{{% for i in range(100) %}}{step}{{% endfor %}}"
        )
    };
    for source in [
        grown("{% set ns.x = ns.x + ns.x %}"),
        grown("{% set ns.x = ns.x ~ ns.x %}"),
        grown("{% set ns.x = (ns.x ~ ns.x)|upper %}"),
        grown("{% set ns.x = ns.x * 9 %}"),
        grown("{% set ns.x = 9 * ns.x %}"),
        grown("{% set ns.x = ns.x.replace('x', ns.x) %}"),
        grown("{% set ns.x = ns.x|replace('x', ns.x) %}"),
        grown("{% set ns.x = [ns.x, ns.x, ns.x]|join %}"),
        grown("{% set ns.x = ns.x.join([ns.x, ns.x]) %}"),
        grown("{% set ns.x = [ns.x]|map('replace', 'x', ns.x)|first %}"),
        grown("{% set ns.x = '%s%s'|format(ns.x, ns.x) %}"),
        grown("{% set ns.x = '{}{}'.format(ns.x, ns.x) %}"),
        grown("{% set ns.x = ns.x|tojson|tojson %}"),
        grown("{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}"),
        grown("{% set ns.l = ns.l + ns.l %}"),
        grown("{% set ns.l = (ns.l * 9)|list %}"),
        grown("{% set ns.l = (ns.l|chain(ns.l))|list %}"),
        grown("{% for x in [ns.x ~ ns.x] %}{% set ns.x = x %}{% endfor %}"),
        grown("{% with x = ns.x ~ ns.x %}{% set ns.x = x %}{% endwith %}"),
        "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('xx') }}".to_owned(),
        "{{ 'x' * 10**10 }}".to_owned(),
        "{{ 'x' * 99999999 }}".to_owned(),
        "{{ [0] * 10**10 }}".to_owned(),
        "{{ ([0] * 10**10)|length }}".to_owned(),
        "{{ 1 in [0] * 10**10 }}".to_owned(),
        "{{ 'x\n'|indent(10**10) }}".to_owned(),
        "{{ 'x\n'|indent(width=10**10) }}".to_owned(),
        "{{ '%9999999999d'|format(1) }}".to_owned(),
        "{{ '%*d'|format(9999999999, 1) }}".to_owned(),
        "{{ '{:>9999999999}'.format(1) }}".to_owned(),
        "{{ '{:>{}}'.format(1, 9999999999) }}".to_owned(),
        "{{ [1]|slice(10**10)|list }}".to_owned(),
        "{{ [1]|batch(10**10, 0)|list }}".to_owned(),
        "{{ range(90000)|select('in', range(90000)|list)|list|length }}".to_owned(),
        long(&format!("{{% set x %}}{}{{% endset %}}", "text ".repeat(1000))),
        long("{% set ns.l = [ns.l[0], i ~ 'text' * 9] + ns.l %}"),
        long(&"text".repeat(99)),
    ] {
        let reason = refusal(&source);
        assert!(reason.contains("makes or writes more than"), "{source}: {reason}");
    }
}

#[test]
fn lists_within_lists_have_a_bound_and_what_they_share_counts_each_time() {
    for (source, words) in [
        ("{% set ns.l = [ns.l] %}", "nests lists more than 64 deep"),
        ("{% set ns.l = {'l': ns.l} %}", "nests lists more than 64 deep"),
        ("{% set ns.l = namespace(l=ns.l) %}", "nests lists more than 64 deep"),
        ("{% set ns.l = ns %}", "nests lists more than 64 deep"),
        ("{% set ns.l = [ns.l, ns.l] %}", "makes or writes more than"),
        ("{% set ns.l = ns.l|map('string') %}{% set ns.l = ns.l[:] * 1 %}", "steps"),
    ] {
        let reason = refusal(&long(source));
        assert!(
            reason.contains(words) || reason.contains("makes or writes more than"),
            "{source}: {reason}"
        );
    }
}

#[test]
fn what_else_has_no_end_is_refused() {
    for (source, words) in [
        ("{{ [1, 2]|tojson(indent=10**4) }}", "indent is more than 256"),
        ("{{ 'x'.count('') }}", "counts an empty text"),
        ("{% for i in range(10**12) %}x{% endfor %}", "range has too many elements"),
        ("{% include 'chat' %}", "reads another template"),
        ("{% import 'chat' as x %}", "reads another template"),
        ("{% from 'chat' import x %}", "reads another template"),
        ("{% extends 'chat' %}", "reads another template"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursion"),
        ("{{ debug() }}", "debug"),
    ] {
        let reason = refusal(source);
        assert!(reason.contains(words), "{source}: {reason}");
    }
    let long = Template::new(&"x".repeat(MAX_SOURCE + 1), Path::new("x"), BTreeMap::new());
    assert!(long.err().unwrap().to_string().contains("at most 262144"));
}

/// A thread of a pool has two megabytes of stack.
#[test]
fn recursion_ends_before_the_stack_does() {
    let run = || {
        let nested = format!("{{{{ {}1{} }}}}", "[".repeat(30), "]".repeat(30));
        assert!(render(&nested).is_ok());
        refusal("{% macro m() %}{{ [m()]|join ~ 'x' }}{% endmacro %}{{ m() }}")
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap();
    assert!(thread.join().unwrap().contains("recursion"));
}

#[test]
fn an_error_keeps_its_line() {
    for (before, line) in
        [("a\nb\n", 3), ("{# \n\n #}{% set x =\n 1 %}\n", 5), ("\n{{ 1 }}\n\n", 4)]
    {
        let source = format!("{before}{{{{ raise_exception('no') }}}}");
        assert_eq!(refusal(&source), format!("no (its line {line})"), "{source}");
    }
}

/// Those of the tests, and any in the folder that `USPX_TEMPLATES` names.
fn templates() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/tokens/templates");
    let more = std::env::var("USPX_TEMPLATES").ok().map(std::path::PathBuf::from);
    let folders = std::iter::once(folder).chain(more);
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "jinja"))
        .map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

/// A hundred messages of some hundred words.
fn conversation() -> Vec<Turn> {
    let words = "The quick brown fox <b> jumps & \"runs\" over 13 lazy dogs.\n".repeat(20);
    let turn =
        |i: usize| if i.is_multiple_of(2) { Turn::user(&words) } else { Turn::assistant(&words) };
    std::iter::once(Turn::system("Be brief.")).chain((0..99).map(turn)).collect()
}

/// What the engine makes of a template that is not written anew.
fn unguarded(
    source: &str,
    messages: &[Turn],
    generate: bool,
) -> std::result::Result<String, Error> {
    let mut plain = environment();
    plain.set_fuel(None);
    plain.add_template_owned("chat", without_generation_tags(source))?;
    plain.get_template("chat")?.render(context! {
        messages => Value::from_serialize(messages),
        tools => (),
        documents => (),
        add_generation_prompt => generate,
        bos_token => "<s>",
        eos_token => "</s>",
    })
}

#[test]
fn templates_in_use_render_as_they_are_and_far_below_the_bounds() {
    let special = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let special: BTreeMap<String, String> =
        special.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let all = conversation();
    for (name, source) in templates() {
        let template = Template::new(&source, Path::new(&name), special.clone()).unwrap();
        for (messages, generate) in
            [(&all[1..2], true), (&all[..3], false), (&all[1..], true), (&all[..], false)]
        {
            let ours = template.render(messages, generate).map_err(|e| e.to_string());
            let spent = allowance::spent();
            match (ours, unguarded(&source, messages, generate)) {
                (Ok(ours), Ok(plain)) => assert_eq!(ours, plain, "{name}"),
                (ours, plain) => {
                    assert!(ours.is_err() && plain.is_err(), "{name}: {ours:?} {plain:?}")
                }
            }
            assert!(spent < 24 << 20, "{name}: {spent} of some 30 million bytes");
        }
        println!("{name}: {} steps, {} bytes", steps(&source, &all[1..]), allowance::spent());
    }
}

/// The steps that a template takes; a twentieth of what it may take must be enough.
fn steps(source: &str, messages: &[Turn]) -> u64 {
    let mut counted = environment();
    counted.set_fuel(Some(MAX_STEPS / 20));
    counted.add_function("uspx_steps", |state: &State<'_, '_>| {
        state.fuel_levels().map_or(0, |(used, _)| used)
    });
    let guarded = guard::guarded(&without_generation_tags(source)).unwrap();
    counted.add_template_owned("chat", guarded + "|{{ uspx_steps() }}").unwrap();
    let context = context! {
        messages => Value::from_serialize(messages), add_generation_prompt => true, bos_token => "<s>"
    };
    match counted.get_template("chat").unwrap().render(context) {
        Ok(text) => text.rsplit('|').next().unwrap().parse().unwrap(),
        Err(e) => {
            assert_ne!(e.kind(), ErrorKind::OutOfFuel, "{source}");
            0
        }
    }
}
