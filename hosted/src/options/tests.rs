use super::*;

/// What a text makes of the options, and the lines that it costs.
fn read(text: &str) -> (Options, Vec<String>) {
    let (options, mut lines) = (Options::new(), Vec::new());
    options.read(text.as_bytes(), |error| lines.push(error.to_string()));
    (options, lines)
}

fn shown(options: &Options, name: &str) -> String {
    let mut text = String::new();
    options.write(name, &mut text).expect("there is one");
    text
}

#[test]
fn nothing_said_is_the_defaults() {
    for text in ["", ",", " , ,, "] {
        let (options, lines) = read(text);
        assert!(lines.is_empty(), "{lines:?}");
        assert_eq!((options.stats_print(), options.limit(), options.reserve()), (None, None, None));
        assert_eq!((options.decay(), options.dirty_per_mille()), (Duration::from_secs(1), 125));
        assert_eq!((options.thp(), options.numa()), (HugePages::Transparent, NumaChoice::Local));
        assert_eq!((options.level(), options.abort()), (ChosenLevel::Checked, true));
        assert_eq!((options.prof(), options.prof_sample(), options.prof_signal()), (false, 512 << 10, None));
        assert_eq!((options.prof_prefix().as_bytes(), options.leak_report()), (&b"pagemill"[..], false));
        assert!(!options.background_thread());
    }
}

#[test]
fn everything_said_is_understood() {
    let (options, lines) = read(
        "stats_print:json,decay_ms:250,dirty_share:1/4,background_thread:true,thp:explicit,prefault:256K,reserve:2g,\
         limit:300m, numa:bind:3 ,level:hardened,abort:false,prof:1,prof_sample:64k,prof_prefix:/tmp/a:b,prof_signal:12,\
         leak_report:true",
    );
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!((options.stats_print(), options.decay()), (Some(Format::Json), Duration::from_millis(250)));
    assert_eq!((options.dirty_per_mille(), options.background_thread()), (250, true));
    assert_eq!((options.thp(), options.prefault()), (HugePages::Explicit, Prefault::Bytes(256 << 10)));
    assert_eq!((options.reserve(), options.limit()), (Some(2 << 30), Some(300 << 20)));
    assert_eq!((options.numa(), options.level()), (NumaChoice::Bind(3), ChosenLevel::Hardened));
    assert_eq!((options.abort(), options.prof(), options.prof_sample()), (false, true, 64 << 10));
    assert_eq!((options.prof_prefix().as_bytes(), options.prof_signal()), (&b"/tmp/a:b"[..], Some(12)));
    assert!(options.leak_report());
}

#[test]
fn values_are_written_as_they_are_read() {
    let said = [
        ("stats_print", "json"),
        ("stats_print", "true"),
        ("dirty_share", "12.5%"),
        ("dirty_share", "100.0%"),
        ("thp", "never"),
        ("thp", "late"),
        ("thp", "always"),
        ("prefault", "off"),
        ("prefault", "auto"),
        ("prefault", "65536"),
        ("limit", "none"),
        ("limit", "1048576"),
        ("numa", "local"),
        ("numa", "interleave"),
        ("numa", "preferred:1023"),
        ("level", "fast"),
        ("abort", "false"),
        ("prof_prefix", "/tmp/x"),
        ("prof_signal", "10"),
    ];
    for (name, value) in said {
        let (options, lines) = read(&format!("{name}:{value}"));
        assert!(lines.is_empty(), "{lines:?}");
        assert_eq!(shown(&options, name), value, "{name}");
    }
    for entry in &parse::ENTRIES {
        let text = shown(&Options::new(), entry.name);
        let (_, lines) = read(&format!("{}:{text}", entry.name));
        assert!(lines.is_empty(), "the default of {} is {text}: {lines:?}", entry.name);
    }
}

#[test]
fn what_is_not_understood_is_one_line_and_the_others_apply() {
    let bad = [
        ("stats_print:yes", "option `stats_print` is `yes`, expected true, false or json"),
        ("decay_ms:0", "option `decay_ms` is `0`, expected milliseconds"),
        ("decay_ms:1s", "option `decay_ms` is `1s`, expected milliseconds"),
        ("decay_ms:99999999999999999999999", "option `decay_ms` is `99999999999999999999999`, expected"),
        ("dirty_share:101", "option `dirty_share` is `101`, expected a share"),
        ("dirty_share:1/0", "option `dirty_share` is `1/0`, expected a share"),
        ("dirty_share:-1", "option `dirty_share` is `-1`, expected a share"),
        ("background_thread:", "option `background_thread` is ``, expected true or false"),
        ("thp:huge", "option `thp` is `huge`, expected late (or default), always, never or explicit"),
        ("prefault:2g", "option `prefault` is `2g`, expected auto, off or bytes"),
        ("reserve:1m", "option `reserve` is `1m`, expected bytes from 8m to 1t"),
        ("reserve:2t", "option `reserve` is `2t`, expected bytes from 8m to 1t"),
        ("limit:5x", "option `limit` is `5x`, expected bytes"),
        ("limit:m", "option `limit` is `m`, expected bytes"),
        ("limit:99999999999t", "option `limit` is `99999999999t`, expected bytes"),
        ("numa:bind", "option `numa` is `bind`, expected local"),
        ("numa:bind:1024", "option `numa` is `bind:1024`, expected local"),
        ("level:Fast", "option `level` is `Fast`, expected fast, checked or hardened"),
        ("abort:maybe", "option `abort` is `maybe`, expected true or false"),
        ("prof_sample:0", "option `prof_sample` is `0`, expected bytes"),
        ("prof_prefix:", "option `prof_prefix` is ``, expected a path"),
        ("prof_signal:9", "option `prof_signal` is `9`, expected the number of a signal"),
        ("prof_signal:65", "option `prof_signal` is `65`, expected the number of a signal"),
        ("abort", "option `abort` has no value, expected `abort:` and true or false"),
        ("stats", "there is no option `stats`, expected one of stats_print decay_ms"),
        ("narenas:4", "there is no option `narenas`, expected one of"),
        (":", "there is no option ``, expected one of"),
        ("a\tb\u{e9}:1", "there is no option `a\\tb\\xc3\\xa9`, expected one of"),
    ];
    for (text, expected) in bad {
        let (options, lines) = read(&format!("prof:true,{text},leak_report:true"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(expected) && !lines[0].contains('\n'), "{text}: {lines:?}");
        assert!(options.prof() && options.leak_report(), "{text}");
    }
    let (_, lines) = read(&format!("{}:1,limit:{}", "n".repeat(500), "9".repeat(500)));
    assert!(lines.len() == 2 && lines.iter().all(|line| line.len() < 400 && line.contains("...`")), "{lines:?}");
}

#[test]
fn what_is_read_once_cannot_be_changed() {
    let options = Options::new();
    for (name, value) in
        [("reserve", "1g"), ("numa", "local"), ("level", "fast"), ("prof_prefix", "x"), ("prof_signal", "1")]
    {
        let error = options.set(name, value).expect_err("it is read once");
        assert!(error.to_string().contains("cannot be changed"), "{error}");
    }
    assert_eq!(options.set("abort", "false"), Ok(()));
    assert!(!options.abort());
    assert!(options.set("abort", "no").is_err() && options.set("nothing", "1").is_err() && !options.abort());
}
