//! The command line.

use std::path::PathBuf;

const USAGE: &str = "\
usage: programs compare|times|pairs --library PATH [options]
  --library PATH   libpagemill.so
  --quick          compare: two programs; times, pairs: two short rounds, that all of it runs
  --reps N         rounds: each heap once in each, in random order (default 9)
  --only A,B       only these programs
  --csv PATH       write the figures there (default for a full run: results/ beside the sources)";

/// The smallest number of rounds whose figures replace the record.
const ENOUGH: usize = 9;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Compare,
    Times,
    Pairs,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Args {
    pub work: Work,
    /// The library under test.
    pub library: PathBuf,
    pub quick: bool,
    /// Rounds.
    pub reps: usize,
    /// Names of programs; all if there are none.
    pub only: Vec<String>,
    csv: Option<PathBuf>,
    /// The options that say what is measured, as they were given: not where files are, which is no part of the record.
    pub measured: Vec<String>,
}

impl Args {
    /// Reads the command line; `Err` says what is wrong with it.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut words = words.into_iter();
        let work = match words.next().as_deref() {
            Some("compare") => Work::Compare,
            Some("times") => Work::Times,
            Some("pairs") => Work::Pairs,
            _ => return Err(USAGE.into()),
        };
        let (mut library, mut reps) = (None, None);
        let mut args = Self {
            work,
            library: PathBuf::new(),
            quick: false,
            reps: 0,
            only: Vec::new(),
            csv: None,
            measured: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--library" => library = Some(PathBuf::from(value()?)),
                "--quick" => {
                    args.quick = true;
                    args.measured.push(word);
                }
                "--reps" => {
                    let number = value()?;
                    reps = Some(number.parse().map_err(|_| "--reps needs a number".to_owned())?);
                    args.measured.extend([word, number]);
                }
                "--only" => {
                    let names = value()?;
                    args.only = names.split(',').map(str::to_owned).collect();
                    args.measured.extend([word, names]);
                }
                "--csv" => args.csv = Some(PathBuf::from(value()?)),
                _ => return Err(format!("unexpected {word}\n{USAGE}")),
            }
        }
        args.library = library.ok_or(USAGE)?;
        args.reps = reps.unwrap_or(if args.quick { 2 } else { ENOUGH });
        if args.reps == 0 { Err("there is at least one round".into()) } else { Ok(args) }
    }

    /// Whether a program is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// Where the figures go: where they were asked to, or, if they are of all and enough rounds, to the record.
    pub(crate) fn csv(&self, name: &str) -> Option<PathBuf> {
        let is_whole = !self.quick && self.only.is_empty() && self.reps >= ENOUGH;
        let record = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../results")).join(name);
        self.csv.clone().or_else(|| is_whole.then(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn only_a_whole_run_replaces_the_record() {
        let csv = |line: &str| parse(line).unwrap().csv("x.csv");
        assert!(csv("times --library l").unwrap().ends_with("results/x.csv"));
        assert_eq!(csv("times --library l --reps 3"), None);
        assert_eq!(csv("times --library l --quick"), None);
        assert_eq!(csv("times --library l --only git"), None);
        assert_eq!(csv("times --library l --quick --csv y"), Some("y".into()));
    }

    #[test]
    fn where_files_are_is_not_on_record() {
        let args = parse("times --library l --reps 9 --csv y --only git,perl").unwrap();
        assert_eq!(args.measured.join(" "), "--reps 9 --only git,perl");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(parse("").is_err() && parse("pairs").is_err() && parse("times --library l --reps 0").is_err());
        assert!(parse("compare --library l --slow").unwrap_err().starts_with("unexpected --slow"));
    }
}
