//! A template written out anew, so that whatever makes a value from values asks the allowance
//! first.
//!
//! The engine counts steps, but one step can double a string, repeat it a hundred million times, or
//! nest a list in itself. It has no place to ask at an operator; so the parsed template is written
//! out as source again with filters around the operands ([`DEEP`], [`FLAT`], [`TEXT`]) and with `*`
//! as a filter of its own ([`TIMES`]). Plain text becomes `{{ "…" }}`, which is counted where it is
//! printed, also where a `set` block catches it. Lines keep their numbers.

mod expression;

use super::short;
use expression::{atom, call, deep, expression, filters, looped, quoted, target};
use minijinja::Error;
use minijinja::machinery::ast::{self, Expr, Stmt};
use minijinja::machinery::{WhitespaceConfig, parse};

/// The filter that weighs a value with all that it holds.
pub(super) const DEEP: &str = "uspx_deep";
/// The filter that weighs a value's own entries.
pub(super) const FLAT: &str = "uspx_flat";
/// The filter that weighs text alone: of a list only as many entries are looked at as steps are
/// taken.
pub(super) const TEXT: &str = "uspx_text";
/// The filter that multiplies.
pub(super) const TIMES: &str = "uspx_times";
/// The filter that fails, in place of what reads other templates.
pub(super) const ALONE: &str = "uspx_alone";

/// The guarded source of a template.
///
/// # Errors
/// It does not parse: what and where.
pub(super) fn guarded(source: &str) -> Result<String, String> {
    let whitespace =
        WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
    let parsed = parse(source, "chat", Default::default(), whitespace);
    let parsed = parsed.map_err(|e: Error| short(&e))?;
    let mut writer = Writer { out: String::with_capacity(2 * source.len()), line: 1 };
    writer.statement(&parsed);
    Ok(writer.out)
}

struct Writer {
    out: String,
    /// The line that is written on.
    line: u32,
}

impl Writer {
    /// `{% … %}` on line `line`, or where the writer is already beyond it.
    fn tag(&mut self, line: u32, content: &str) {
        self.between("{%", line, content, "%}");
    }

    fn between(&mut self, open: &str, line: u32, content: &str, close: &str) {
        self.out.push_str(open);
        for _ in self.line..line {
            self.out.push('\n');
        }
        self.line = self.line.max(line);
        self.out.extend([" ", content, " ", close]);
    }

    fn end(&mut self, content: &str) {
        self.tag(self.line, content);
    }

    fn body(&mut self, statements: &[Stmt<'_>]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn block(&mut self, line: u32, open: &str, body: &[Stmt<'_>], close: &str) {
        self.tag(line, open);
        self.body(body);
        self.end(close);
    }

    fn statement(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::Template(s) => self.body(&s.children),
            Stmt::EmitExpr(s) => {
                self.between("{{", s.span().start_line.into(), &expression(&s.expr), "}}");
            }
            Stmt::EmitRaw(s) => {
                self.between("{{", s.span().start_line.into(), &quoted(s.raw), "}}");
            }
            Stmt::ForLoop(s) => self.for_loop(s, s.span().start_line.into()),
            Stmt::IfCond(s) => self.condition("if", s, s.span().start_line.into()),
            Stmt::Set(s) => self.set(s, s.span().start_line.into()),
            Stmt::Do(s) => self.tag(s.span().start_line.into(), &format!("do {}", call(&s.call))),
            Stmt::Continue(s) => self.tag(s.span().start_line.into(), "continue"),
            Stmt::Break(s) => self.tag(s.span().start_line.into(), "break"),
            _ => self.scope(statement),
        }
    }

    fn scope(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::WithBlock(s) => {
                let each = |(to, from): &(Expr<'_>, Expr<'_>)| {
                    format!("{} = {}", target(to), expression(from))
                };
                let all: Vec<String> = s.assignments.iter().map(each).collect();
                let open = format!("with {}", all.join(", "));
                self.block(s.span().start_line.into(), &open, &s.body, "endwith");
            }
            Stmt::SetBlock(s) => {
                let filter = s.filter.as_ref().map(|f| format!(" | {}", filters(f)));
                let open = format!("set {}{}", target(&s.target), filter.unwrap_or_default());
                self.block(s.span().start_line.into(), &open, &s.body, "endset");
            }
            Stmt::AutoEscape(s) => {
                let open = format!("autoescape {}", expression(&s.enabled));
                self.block(s.span().start_line.into(), &open, &s.body, "endautoescape");
            }
            Stmt::FilterBlock(s) => {
                let open = format!("filter {}", filters(&s.filter));
                self.block(s.span().start_line.into(), &open, &s.body, "endfilter");
            }
            Stmt::Block(s) => {
                let open = format!("block {}", s.name);
                self.block(s.span().start_line.into(), &open, &s.body, "endblock");
            }
            Stmt::Macro(s) => {
                let open = format!("macro {}({})", s.name, parameters(s));
                self.block(s.span().start_line.into(), &open, &s.body, "endmacro");
            }
            Stmt::CallBlock(s) => {
                let open = format!("call({}) {}", parameters(&s.macro_decl), call(&s.call));
                self.block(s.span().start_line.into(), &open, &s.macro_decl.body, "endcall");
            }
            // Import, extends, include: there is no other template.
            _ => self.between("{{", self.line, &format!("none|{ALONE}"), "}}"),
        }
    }

    fn for_loop(&mut self, s: &ast::ForLoop<'_>, line: u32) {
        let condition = s.filter_expr.as_ref().map(|e| format!(" if {}", atom(e)));
        let recursive = if s.recursive { " recursive" } else { "" };
        let (to, from) = (target(&s.target), looped(&s.iter));
        let condition = condition.unwrap_or_default();
        self.tag(line, &format!("for {to} in {from}{condition}{recursive}"));
        self.body(&s.body);
        if !s.else_body.is_empty() {
            self.end("else");
            self.body(&s.else_body);
        }
        self.end("endfor");
    }

    fn condition(&mut self, word: &str, s: &ast::IfCond<'_>, line: u32) {
        self.tag(line, &format!("{word} {}", expression(&s.expr)));
        self.body(&s.true_body);
        match s.false_body.as_slice() {
            // Written so, a long chain of them is not a deep one.
            [Stmt::IfCond(next)] => {
                return self.condition("elif", next, next.span().start_line.into());
            }
            [] => {}
            other => {
                self.end("else");
                self.body(other);
            }
        }
        self.end("endif");
    }

    /// What a namespace keeps is weighed, so that none holds others without an end.
    fn set(&mut self, s: &ast::Set<'_>, line: u32) {
        let from = match &s.target {
            Expr::GetAttr(_) => deep(&s.expr),
            _ => expression(&s.expr),
        };
        self.tag(line, &format!("set {} = {from}", target(&s.target)));
    }
}

/// A macro's parameters; the last ones have the defaults.
fn parameters(declared: &ast::Macro<'_>) -> String {
    let without = declared.args.len().saturating_sub(declared.defaults.len());
    let mut all: Vec<String> = declared.args.iter().map(target).collect();
    for (parameter, default) in all.iter_mut().skip(without).zip(&declared.defaults) {
        *parameter = format!("{parameter}={}", expression(default));
    }
    all.join(", ")
}
