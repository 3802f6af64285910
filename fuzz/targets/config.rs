//! Configuration texts: no panic; an error is shown at a place in the file; what loads, loads again alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mintgate_fuzz::load;

fuzz_target!(|text: &str| {
    let (shown, loaded) = match load(text) {
        Ok((config, warnings)) => {
            assert_eq!(warnings.errors(), 0);
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
    assert_eq!(load(text).ok().map(|(config, _)| format!("{config:?}")), loaded);
});
