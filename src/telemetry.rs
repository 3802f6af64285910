//! Log lines: what they may show, in which form, and how they reach standard error.
//!
//! Lines go to standard error, since standard output belongs to what a command prints. A thread of their own writes
//! them ([`sink`]), so a pipe that nobody reads stops no worker. Text on a terminal, with colour unless `NO_COLOR` is
//! set; JSON, one object a line, everywhere else.

pub mod sink;

use std::any::Any;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};
use std::panic::{self, PanicHookInfo};

use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use sink::{Flush, Sink};

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One readable line.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.access`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No request.
    Off,
    /// Our own errors and upstream answers from 500.
    Errors,
    /// Every request.
    All,
}

/// `log.identity`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Nothing.
    None,
    /// Eight digits of a digest.
    Hash,
    /// The ids themselves.
    Plain,
}

/// Where the filter was written, for the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterFrom {
    /// `log.filter`
    Config,
    /// `MINTGATE_LOG`, which goes before the config.
    Environment,
}

/// Logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not directives of `EnvFilter`.
    #[error("the log filter in {} cannot be read", from.as_str())]
    Filter {
        /// Where it was written.
        from: FilterFrom,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The thread that writes lines was refused by the system.
    #[error("cannot start the thread that writes log lines")]
    Thread(#[source] io::Error),
    /// A process logs in one way only.
    #[error("logging has begun already")]
    Begun(#[source] tracing_subscriber::util::TryInitError),
}

/// Logging goes on while this lives; dropped, it waits for the lines that are under way.
#[derive(Debug)]
#[must_use = "lines are flushed when this is dropped"]
pub struct Guard {
    flush: Flush,
    filter: Handle<EnvFilter, Registry>,
}

/// Starts logging, and logs panics too. Called once, from the composition root.
///
/// # Errors
/// A filter that cannot be read, a thread that cannot be started, or a second call.
pub fn init(filter: &str, from: FilterFrom, format: LogFormat) -> Result<Guard, TelemetryError> {
    let (filter, handle) = reload::Layer::new(parse(filter, from)?);
    let terminal = io::stderr().is_terminal();
    let (sink, flush) = Sink::start(io::stderr()).map_err(TelemetryError::Thread)?;
    subscriber(filter, format, terminal, sink).try_init().map_err(TelemetryError::Begun)?;
    panic::set_hook(Box::new(log_panic));
    Ok(Guard { flush, filter: handle })
}

/// Whether the text is a filter: for checking a configuration without putting it to use.
///
/// # Errors
/// [`TelemetryError::Filter`] alone.
pub fn parse(filter: &str, from: FilterFrom) -> Result<EnvFilter, TelemetryError> {
    directives(filter).map_err(|source| TelemetryError::Filter { from, source })
}

/// Read alike wherever a filter comes from, and without regular expressions: one of them would cost as much as its author likes.
fn directives(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_regex(false).parse(filter)
}

/// An error with everything that caused it, on one line: `a: b: c`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The subscriber over any writer, so that a test can read what it writes.
pub(crate) fn subscriber<F, W>(
    filter: F,
    format: LogFormat,
    terminal: bool,
    writer: W,
) -> impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync
where
    F: Layer<Registry> + Send + Sync,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    // The layer's own default follows NO_COLOR.
    let lines = if terminal { lines } else { lines.with_ansi(false) };
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines: Box<dyn Layer<_> + Send + Sync> = if json {
        lines.with_ansi(false).json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        lines.fmt_fields(debug_fn(write_field).delimited(" ")).boxed()
    };
    Registry::default().with(filter).with(lines)
}

// === impl FilterFrom, Guard ===

impl FilterFrom {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "log.filter",
            Self::Environment => "MINTGATE_LOG",
        }
    }
}

impl Guard {
    /// How many lines were lost because standard error took no more, for a metric.
    pub fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let flush = self.flush.counter();
        move || flush.get()
    }

    /// Replaces the filter while the process runs. One that cannot be read changes nothing; what is wrong with it is told.
    pub fn refilter(&self) -> impl Fn(&str) -> Result<(), String> + Send + Sync + 'static {
        let handle = self.filter.clone();
        move |filter| {
            let filter = directives(filter).map_err(|error| chain(&error))?;
            handle.reload(filter).map_err(|error| chain(&error))
        }
    }
}

// === text ===

/// JSON escapes control characters; the library's text does so for quoted values alone, not for those that are
/// written by their `Display`, so that an error's text could end the line or colour the terminal.
struct OneLine<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Marks that change the direction of text make a line read as another one.
        let moves =
            |of: char| matches!(of, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        for part in text.split_inclusive(|of: char| of.is_control() || moves(of)) {
            match part.char_indices().next_back() {
                Some((at, last)) if last.is_control() || moves(last) => {
                    write!(self.0, "{}{}", &part[..at], last.escape_default())?;
                }
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(OneLine(writer), "{value:?}")
}

// === panics ===

/// In place of the standard hook, which prints the message whole. A message made at run time may quote a value (a
/// failed `unwrap` prints the error, a bad slice prints the text), so only one that stands in the source is logged.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    tracing::error!(
        target: "mintgate::panic",
        reason = literal(panic.payload()),
        at = panic.location().map(tracing::field::display),
        thread = thread.name(),
        "a task panicked"
    );
}

fn literal(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("not shown: it may quote a value")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Fails where regular expressions are compiled: this is none.
    #[test]
    fn a_filter_has_no_regular_expressions() {
        for filter in ["info,[{sub=(}]=debug", "[a{sub=((x+)+)+$[}]=trace"] {
            assert!(parse(filter, FilterFrom::Config).is_ok(), "{filter}");
        }
        assert!(parse("mintgate=loud", FilterFrom::Config).is_err());
    }

    /// A writer whose lines can be read.
    #[derive(Clone, Default)]
    pub(crate) struct Seen(Arc<Mutex<Vec<u8>>>);

    impl Seen {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What was written, as text.
    fn lines(format: LogFormat, terminal: bool, log: impl FnOnce()) -> String {
        let seen = Seen::default();
        let (writer, filter) = (seen.clone(), parse("info", FilterFrom::Config).unwrap());
        tracing::subscriber::with_default(subscriber(filter, format, terminal, move || writer.clone()), log);
        seen.text()
    }

    #[test]
    fn auto_is_json_away_from_a_terminal() {
        let log = || tracing::info!(answer = 42, text = "a\nb", "hello");
        let json = lines(LogFormat::Auto, false, log);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&line["answer"], &line["text"], &line["message"]), (&42.into(), &"a\nb".into(), &"hello".into()));
        assert_eq!(json.matches('\n').count(), 1);
        let text = lines(LogFormat::Auto, true, log);
        assert!(text.contains("hello") && !text.starts_with('{'), "{text}");
    }

    #[test]
    fn no_value_can_end_a_line_or_colour_a_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let seen = lines(format, false, || {
                tracing::info!(text = "a\r\nlevel=ERROR \x1b[31m", shown = %"b\n\x1b[31m\u{9b}", "c\n\x1b[31m {}", "d\r");
            });
            let body = seen.strip_suffix('\n').unwrap();
            let quiet = |of: char| !of.is_control() || (format == LogFormat::Json && of == '\u{9b}');
            assert!(body.chars().all(quiet), "{seen:?}");
        }
        let marks = lines(LogFormat::Text, false, || tracing::info!(answer = 42, shown = %"a\u{202e}b", "hello"));
        assert!(marks.ends_with(" hello answer=42 shown=a\\u{202e}b\n"), "{marks:?}");
    }

    #[test]
    fn the_filter_decides() {
        assert_eq!(lines(LogFormat::Json, false, || tracing::debug!("hidden")), "");
        let error = parse("mintgate=loud", FilterFrom::Environment).unwrap_err();
        assert!(error.to_string().contains("MINTGATE_LOG"), "{error}");
    }

    #[test]
    fn a_panic_message_is_shown_only_when_it_stands_in_the_source() {
        let payload = |of: fn()| panic::catch_unwind(of).unwrap_err();
        assert_eq!(literal(&*payload(|| panic!("as written"))), "as written");
        let made = literal(&*payload(|| panic!("{}", std::hint::black_box("canary"))));
        assert!(!made.contains("canary"), "{made}");
    }
}
