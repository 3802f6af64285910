//! Configuration texts: no panic; an error is shown at a place in the file; what loads, loads again alike, can be served,
//! and `mintgate check` says so too, with the same warnings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mintgate::config::Config;
use mintgate::proxy::clean::Cleaner;
use mintgate::route::Router;
use mintgate_fuzz::{check, load};

/// Without what colours a terminal.
fn plain(text: &str) -> String {
    let mut pieces = text.split('\x1b');
    let first = pieces.next().unwrap().to_owned();
    pieces.fold(first, |whole, piece| whole + piece.split_once('m').unwrap().1)
}

/// What is built of every configuration that is served.
fn build(config: &Config) {
    let _ = Router::new(&config.routes);
    for route in &config.routes {
        let _ = Cleaner::new(route, config.upstream_of(route), &config.routes);
    }
}

fuzz_target!(|text: &str| {
    let (shown, loaded) = match load(text) {
        Ok((config, warnings)) => {
            assert_eq!(warnings.errors(), 0);
            build(&config);
            (warnings, Some(format!("{config:?}")))
        }
        Err(problems) => {
            assert!(problems.errors() > 0);
            (problems, None)
        }
    };
    let lines = text.split('\n').count();
    let rendered = shown.render(false);
    for place in rendered.lines().filter_map(|line| line.trim_start().strip_prefix("--> fuzz.toml:")) {
        let line: usize = place.split(':').next().unwrap().parse().unwrap();
        assert!((1..=lines).contains(&line), "{place} of {lines} lines");
    }
    // A terminal is sent no escape but ours.
    assert!(!rendered.contains('\x1b'));
    assert_eq!(plain(&shown.render(true)), rendered);
    assert_eq!(load(text).ok().map(|(config, _)| format!("{config:?}")), loaded);

    // `check` needs no secret and judges the rest alike.
    let (good, out, err) = check(text);
    if loaded.is_some() {
        assert!(good, "{err}");
        assert_eq!(err, rendered);
    }
    assert_eq!(good, !out.is_empty());
    if !good {
        assert!(err.lines().last().unwrap().starts_with("fuzz.toml: "), "{err}");
    }
});
