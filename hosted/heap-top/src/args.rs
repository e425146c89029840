//! The command line.

use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
usage: heap-top FILE [options]
  --base FILE      less what is in this profile: what has come and gone between the two
  --value NAME     inuse_space (default), inuse_objects, alloc_space, alloc_objects, or what else the file has
  --lines N        so many functions (default 30)
  --cum            by what is under a function, not by what it asks for itself
  --folded         a line for each stack, as programs for flame graphs read it
  --help           this
";

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    List,
    Folded,
}

/// What was asked for.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Args {
    pub(crate) file: PathBuf,
    pub(crate) base: Option<PathBuf>,
    pub(crate) value: Option<String>,
    pub(crate) lines: usize,
    pub(crate) by_sum: bool,
    pub(crate) form: Form,
}

impl Args {
    /// Reads the command line; `None` if it asks for help. `Err` says in one line what is wrong with it.
    pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let mut parsed =
            Self { file: PathBuf::new(), base: None, value: None, lines: 30, by_sum: false, form: Form::List };
        let mut file = None;
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--base" => parsed.base = Some(value()?.into()),
                "--value" => parsed.value = Some(value()?),
                "--lines" => {
                    let text = value()?;
                    parsed.lines = text.parse().map_err(|_| format!("--lines {text}: no number"))?;
                }
                "--cum" => parsed.by_sum = true,
                "--folded" => parsed.form = Form::Folded,
                "--help" | "-h" => return Ok(None),
                option if option.starts_with("--") => return Err(format!("there is no option {option}")),
                _ if file.is_some() => return Err(format!("one file, and {arg} is another")),
                path => file = Some(path.into()),
            }
        }
        parsed.file = file.ok_or("a file is missing")?;
        Ok(Some(parsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Args>, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_understood() {
        let args = parse("a.pb.gz --base b.pb.gz --lines 3 --cum --value alloc_space --folded").unwrap().unwrap();
        let (base, value) = (Some("b.pb.gz".into()), Some("alloc_space".into()));
        let file = "a.pb.gz".into();
        assert_eq!(args, Args { file, base, value, lines: 3, by_sum: true, form: Form::Folded });
        assert_eq!(parse("--help"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, wrong) in [
            ("", "missing"),
            ("a b", "another"),
            ("a --lines", "needs a value"),
            ("a --lines x", "no number"),
            ("a --sorted", "no option --sorted"),
        ] {
            assert!(parse(line).unwrap_err().contains(wrong), "{line}");
        }
    }
}
