//! Problems as text for a person: file, line, the text underlined, advice. What must not be shown is gone already.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::config::raw::problem::{Problem, Problems, Severity, Span, blot};

/// Everything that was found in one file, in the order of the file. Holds the file with its secrets blotted out.
#[derive(Clone)]
pub struct Diagnostics {
    file: String,
    source: String,
    problems: Vec<Problem>,
}

/// One problem, for a program.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Told<'a> {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What is wrong.
    pub title: &'a str,
    /// Where, counted from 1; absent when it is about no place in the file.
    pub line: Option<usize>,
    /// Where in that line, in characters, counted from 1.
    pub column: Option<usize>,
    /// What stands beside the underline.
    pub label: Option<&'a str>,
    /// What to do.
    pub advice: Option<&'a str>,
}

// === impl Diagnostics ===

impl Diagnostics {
    pub(crate) fn new(file: &Path, source: &str, mut found: Problems) -> Self {
        found.items.sort_by_key(|problem| problem.span.as_ref().map_or(0, |span| span.start));
        let source = blot(source, &found.hidden);
        for problem in &mut found.items {
            let made = [Some(&mut problem.title), problem.label.as_mut(), problem.advice.as_mut()];
            // What is fixed holds no secret, and may well speak of how one begins.
            for text in made.into_iter().flatten().filter(|text| matches!(text, Cow::Owned(_))) {
                *text = Cow::Owned(blot(text, &[]));
            }
        }
        Self { file: file.display().to_string(), source, problems: found.items }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many things make the file unusable.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many things are probably not meant.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// The titles alone, without any source text: for a log.
    pub fn titles(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().map(|problem| &*problem.title)
    }

    /// One line for each error: where it is, what it is, what to do. Without the line of the file itself, so that it may
    /// be shown where the file may not.
    pub fn brief(&self) -> impl Iterator<Item = String> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| {
            let line = problem.span.as_ref().map(|span| {
                let before = &self.source[..self.within(span).start];
                format!(":{}", before.matches('\n').count() + 1)
            });
            let advice = problem.advice.as_ref().or(problem.label.as_ref()).map(|advice| format!("; {advice}"));
            format!("{}{}: {}{}", self.file, line.unwrap_or_default(), problem.title, advice.unwrap_or_default())
        })
    }

    /// The whole text, with colours only when asked for.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(&self.render_one(problem, &renderer));
            out.push_str("\n\n");
        }
        out
    }

    /// Each problem as data, without any source text.
    pub fn told(&self) -> impl Iterator<Item = Told<'_>> {
        self.problems.iter().map(|problem| {
            let before = problem.span.as_ref().map(|span| &self.source[..self.within(span).start]);
            let column = |before: &str| before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            Told {
                severity: match problem.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                title: &problem.title,
                line: before.map(|before| before.matches('\n').count() + 1),
                column: before.map(column),
                label: problem.label.as_deref(),
                advice: problem.advice.as_deref(),
            }
        })
    }

    /// The same text, for each problem by itself and without colours.
    pub fn each(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| self.render_one(problem, &Renderer::plain()))
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = annotate_snippets::Group::with_title(level.primary_title(&*problem.title));
        if let Some(span) = &problem.span {
            let mut primary = AnnotationKind::Primary.span(self.within(span));
            if let Some(label) = &problem.label {
                primary = primary.label(&**label);
            }
            let mut snippet = Snippet::source(&self.source).path(&self.file).annotation(primary);
            if let Some((span, label)) = &problem.also {
                snippet = snippet.annotation(AnnotationKind::Context.span(self.within(span)).label(label));
            }
            group = group.element(snippet);
        } else {
            group = group.element(annotate_snippets::Origin::path(&self.file));
        }
        if let Some(advice) = &problem.advice {
            group = group.element(Level::HELP.message(&**advice));
        }
        renderer.render(&[group])
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }

    /// The span, made to lie in the source on borders of characters and to cover one line only: a value may be long.
    fn within(&self, span: &Span) -> Span {
        let mut start = span.start.min(self.source.len());
        while !self.source.is_char_boundary(start) {
            start -= 1;
        }
        let line_end = self.source[start..].find(['\n', '\r']).map_or(self.source.len(), |length| start + length);
        let mut end = span.end.clamp(start, line_end);
        while !self.source.is_char_boundary(end) {
            end += 1;
        }
        start..end
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Diagnostics({self})")
    }
}

impl std::error::Error for Diagnostics {}
