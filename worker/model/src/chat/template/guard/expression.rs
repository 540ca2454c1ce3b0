//! Expressions, written out with their operands weighed.

use super::{DEEP, FLAT, TEXT, TIMES};
use minijinja::Value;
use minijinja::machinery::ast::{self, BinOpKind, CallArg, CompareOpKind, Expr, UnaryOpKind};
use minijinja::value::ValueKind;

/// Constants up to this length are not weighed.
const SHORT: usize = 64;

/// Filters and tests that look at no entry of what they are given.
const CHEAP: [&str; 19] = [
    "length",
    "count",
    "default",
    "d",
    "defined",
    "undefined",
    "none",
    "string",
    "mapping",
    "iterable",
    "sequence",
    "number",
    "integer",
    "float",
    "boolean",
    "true",
    "false",
    "odd",
    "even",
];

/// Any expression.
pub(super) fn expression(e: &Expr<'_>) -> String {
    match e {
        Expr::BinOp(op) => binary(op),
        Expr::Compare(s) => s.ops.iter().fold(deep(&s.expr), |left, next| {
            format!("{left} {} {}", comparison(next.op), deep(&next.expr))
        }),
        Expr::UnaryOp(s) => match s.op {
            UnaryOpKind::Not => format!("not {}", atom(&s.expr)),
            UnaryOpKind::Neg => format!("-{}", atom(&s.expr)),
        },
        Expr::IfExpr(s) => {
            let other = s.false_expr.as_ref().map(|e| format!(" else {}", atom(e)));
            let (value, test) = (atom(&s.true_expr), atom(&s.test_expr));
            format!("{value} if {test}{}", other.unwrap_or_default())
        }
        Expr::Test(s) => format!("{} is {}{}", weighed(s.name, &s.expr), s.name, given(&s.args)),
        _ => atom(e),
    }
}

/// An expression that a filter, an attribute or an operator can stand beside.
pub(super) fn atom(e: &Expr<'_>) -> String {
    match e {
        Expr::Var(s) => s.id.to_owned(),
        Expr::Const(s) => constant(&s.value),
        Expr::Slice(s) => {
            let part = |e: &Option<Expr<'_>>| e.as_ref().map(atom).unwrap_or_default();
            let (start, stop, step) = (part(&s.start), part(&s.stop), part(&s.step));
            format!("({})[{start}:{stop}:{step}]", text(&s.expr))
        }
        Expr::Filter(s) => {
            let of = s.expr.as_ref().map(|e| weighed(s.name, e) + "|").unwrap_or_default();
            format!("{of}{}{}", s.name, given(&s.args))
        }
        Expr::GetAttr(s) => format!("{}.{}", atom(&s.expr), s.name),
        Expr::GetItem(s) => format!("{}[{}]", atom(&s.expr), expression(&s.subscript_expr)),
        Expr::Call(s) => call(s),
        Expr::List(s) => format!("[{}]", listed(&s.items, deep)),
        Expr::Map(s) => {
            let pairs = s.keys.iter().zip(&s.values);
            let pair = |(key, value)| format!("{}: {}", deep(key), deep(value));
            format!("{{{}}}", pairs.map(pair).collect::<Vec<_>>().join(", "))
        }
        _ => format!("({})", expression(e)),
    }
}

fn listed(items: &[Expr<'_>], each: impl Fn(&Expr<'_>) -> String) -> String {
    items.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// Weighed with all that it holds.
pub(super) fn deep(e: &Expr<'_>) -> String {
    if is_small(e) { atom(e) } else { format!("({})|{DEEP}", expression(e)) }
}

/// Weighed by its own entries.
fn flat(e: &Expr<'_>) -> String {
    if is_small(e) { atom(e) } else { format!("({})|{FLAT}", expression(e)) }
}

/// Weighed where it is a text.
fn text(e: &Expr<'_>) -> String {
    if is_small(e) { atom(e) } else { format!("({})|{TEXT}", expression(e)) }
}

/// What a loop runs over. A range makes its numbers one by one, and has at most 100,000.
pub(super) fn looped(e: &Expr<'_>) -> String {
    let is_range = |call: &ast::Call<'_>| matches!(&call.expr, Expr::Var(v) if v.id == "range");
    match e {
        Expr::Call(s) if is_range(s) => call(s),
        _ => text(e),
    }
}

/// What the filter or test `name` is applied to.
fn weighed(name: &str, e: &Expr<'_>) -> String {
    if CHEAP.contains(&name) { atom(e) } else { deep(e) }
}

fn is_small(e: &Expr<'_>) -> bool {
    matches!(e, Expr::Const(s) if s.value.as_str().is_none_or(|text| text.len() <= SHORT))
}

fn binary(op: &ast::BinOp<'_>) -> String {
    let plain = |word: &str| format!("{} {word} {}", atom(&op.left), atom(&op.right));
    let compared = |word: &str| format!("{} {word} {}", deep(&op.left), deep(&op.right));
    match op.op {
        BinOpKind::Add => chain(op, "+", text),
        BinOpKind::Concat => chain(op, "~", deep),
        BinOpKind::ScAnd => chain(op, "and", atom),
        BinOpKind::ScOr => chain(op, "or", atom),
        BinOpKind::Mul => format!("{}|{TIMES}({})", deep(&op.left), deep(&op.right)),
        BinOpKind::Sub => plain("-"),
        BinOpKind::Div => plain("/"),
        BinOpKind::FloorDiv => plain("//"),
        BinOpKind::Rem => plain("%"),
        BinOpKind::Pow => plain("**"),
        BinOpKind::Eq => compared("=="),
        BinOpKind::Ne => compared("!="),
        BinOpKind::Lt => compared("<"),
        BinOpKind::Lte => compared("<="),
        BinOpKind::Gt => compared(">"),
        BinOpKind::Gte => compared(">="),
        BinOpKind::In => compared("in"),
    }
}

/// `a + b + c` without parentheses: a parser refuses those that are nested deeply.
fn chain(op: &ast::BinOp<'_>, word: &str, operand: impl Fn(&Expr<'_>) -> String) -> String {
    let kind = std::mem::discriminant(&op.op);
    let (mut left, mut operands) = (&op.left, vec![operand(&op.right)]);
    while let Expr::BinOp(inner) = left
        && std::mem::discriminant(&inner.op) == kind
    {
        operands.push(operand(&inner.right));
        left = &inner.left;
    }
    operands.push(operand(left));
    operands.reverse();
    operands.join(&format!(" {word} "))
}

fn comparison(op: CompareOpKind) -> &'static str {
    match op {
        CompareOpKind::Eq => "==",
        CompareOpKind::Ne => "!=",
        CompareOpKind::Lt => "<",
        CompareOpKind::Lte => "<=",
        CompareOpKind::Gt => ">",
        CompareOpKind::Gte => ">=",
        CompareOpKind::In => "in",
        CompareOpKind::NotIn => "not in",
    }
}

/// A chain of filters that is applied to a block.
pub(super) fn filters(e: &Expr<'_>) -> String {
    let Expr::Filter(s) = e else { return atom(e) };
    let before = s.expr.as_ref().map(|e| filters(e) + "|").unwrap_or_default();
    format!("{before}{}{}", s.name, given(&s.args))
}

/// A call; what a method is called on is weighed, except for what the engine knows by name.
pub(super) fn call(s: &ast::Call<'_>) -> String {
    let by_name = |e: &Expr<'_>| matches!(e, Expr::Var(v) if ["self", "loop"].contains(&v.id));
    let callee = match &s.expr {
        Expr::GetAttr(of) if !by_name(&of.expr) => format!("({}).{}", flat(&of.expr), of.name),
        other => atom(other),
    };
    format!("{callee}({})", arguments(&s.args))
}

/// What a filter or a test is given; nothing where there is none.
fn given(all: &[CallArg<'_>]) -> String {
    if all.is_empty() { String::new() } else { format!("({})", arguments(all)) }
}

fn arguments(all: &[CallArg<'_>]) -> String {
    let each = |argument: &CallArg<'_>| match argument {
        CallArg::Pos(e) => deep(e),
        CallArg::Kwarg(name, e) => format!("{name}={}", deep(e)),
        CallArg::PosSplat(e) => format!("*{}", deep(e)),
        CallArg::KwargSplat(e) => format!("**{}", deep(e)),
    };
    all.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// What is assigned to: a name, some of them, or a namespace's attribute.
pub(super) fn target(e: &Expr<'_>) -> String {
    match e {
        Expr::List(s) => format!("({},)", listed(&s.items, target)),
        _ => atom(e),
    }
}

fn constant(value: &Value) -> String {
    match value.kind() {
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::None => "none".to_owned(),
        ValueKind::Undefined => "undefined".to_owned(),
        _ => value.to_string(),
    }
}

/// A string's literal.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
