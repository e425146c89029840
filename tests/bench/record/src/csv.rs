//! The record: what was measured, by which commit and command, on which machine, when.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, io, thread};

use crate::stats::Spread;

const RUN: &str = "commit,command,machine,date";
const FIGURE: &str = "median,min,max,reps,q1,q3";

/// What a line of a record says besides the run and the figure.
pub trait Columns: Sized {
    /// The names of its columns.
    const NAMES: &'static str;

    /// Its words, one for each column.
    fn words(&self) -> Vec<String>;

    /// Its figure.
    fn spread(&self) -> Spread;

    /// The line of these words and this figure; `None` where a word cannot be one of its column.
    fn of_words(words: &[String], spread: Spread) -> Option<Self>;
}

/// All figures of a run.
pub struct Record<R> {
    /// The commit measured.
    pub commit: String,
    /// The command that measured it.
    pub command: String,
    /// The machine.
    pub machine: String,
    /// The day, in UTC.
    pub date: String,
    /// The figures.
    pub rows: Vec<R>,
}

impl<R: Columns> Record<R> {
    /// An empty record of this run of `program`, as a shell calls it.
    pub fn new(program: &str) -> Self {
        Self::of(program, &env::args().skip(1).collect::<Vec<_>>())
    }

    /// An empty record of a run of `program` with these options.
    pub fn of(program: &str, options: &[String]) -> Self {
        let command = format!("{program} {}", options.join(" "));
        Self {
            commit: commit().unwrap_or("unknown".into()),
            command: command.trim_end_matches([' ', '-']).into(),
            machine: machine(),
            date: date(SystemTime::now()),
            rows: Vec::new(),
        }
    }

    /// Writes the record to `path`.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = header::<R>() + "\n";
        for row in &self.rows {
            let s = row.spread();
            let run = [&self.commit, &self.command, &self.machine, &self.date].map(String::clone);
            for word in run.iter().chain(&row.words()) {
                let _ = write!(text, "{},", quote(word));
            }
            let _ = write!(text, "{:.3},{:.3},{:.3},{},", s.median, s.min, s.max, s.reps);
            let _ = writeln!(text, "{:.3},{:.3}", s.q1, s.q3);
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)
    }

    /// Reads a record.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(&text).ok_or(format!("{} is not a record of this program", path.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != header::<R>() {
            return None;
        }
        let mut record: Option<Self> = None;
        for line in lines {
            let fields = split(line);
            let [commit, command, machine, date, rest @ ..] = fields.as_slice() else { return None };
            record
                .get_or_insert_with(|| Self {
                    commit: commit.clone(),
                    command: command.clone(),
                    machine: machine.clone(),
                    date: date.clone(),
                    rows: Vec::new(),
                })
                .rows
                .push(parse_row(rest)?);
        }
        record
    }
}

fn header<R: Columns>() -> String {
    [RUN, R::NAMES, FIGURE].join(",")
}

fn parse_row<R: Columns>(fields: &[String]) -> Option<R> {
    let (words, figures) = fields.split_at_checked(fields.len().checked_sub(6)?)?;
    let [median, min, max, reps, q1, q3] = figures else { return None };
    let figure = |word: &String| word.parse::<f64>().ok();
    let spread = Spread {
        median: figure(median)?,
        min: figure(min)?,
        max: figure(max)?,
        q1: figure(q1)?,
        q3: figure(q3)?,
        reps: reps.parse().ok()?,
    };
    R::of_words(words, spread)
}

/// Quotes a field that holds a comma.
fn quote(field: &str) -> String {
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.into() }
}

/// Splits a line at the commas outside quotes.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = fields.last_mut().expect("there is always a field");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                last.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => last.push(c),
        }
    }
    fields
}

/// The commit, marked where sources differ from it. Results do not count: a run may follow another.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let head = git(&["rev-parse", "--short=10", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)tests/bench/results"])?;
    Some(if changed.is_empty() { head } else { head + "-changed" })
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let told = |key: &str| {
        let value = |line: &'_ str| Some(line.split_once(':').filter(|(k, _)| k.trim() == key)?.1.trim().to_string());
        info.lines().find_map(value)
    };
    let name = told("model name").unwrap_or(env::consts::ARCH.into());
    // Virtual machines do not always tell the generation in the name.
    let generation = told("cpu family").zip(told("model"));
    let generation = generation.map(|(family, model)| format!(", family {family} model {model}")).unwrap_or_default();
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    format!("{name}{generation}, {cores} cores")
}

/// The day as `year-month-day`, in UTC.
fn date(now: SystemTime) -> String {
    let days = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86_400);
    // Counted from the first of March of the year 0, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!("{:04}-{month:02}-{day:02}", year + era * 400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Row {
        who: String,
        spread: Spread,
    }

    impl Columns for Row {
        const NAMES: &'static str = "who";

        fn words(&self) -> Vec<String> {
            vec![self.who.clone()]
        }

        fn spread(&self) -> Spread {
            self.spread
        }

        fn of_words(words: &[String], spread: Spread) -> Option<Self> {
            let [who] = words else { return None };
            Some(Self { who: who.clone(), spread })
        }
    }

    #[test]
    fn days() {
        let day = |n: u64| date(UNIX_EPOCH + Duration::from_secs(n * 86_400));
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(11_016), "2000-02-29");
        assert_eq!(day(20_777), "2026-11-20");
    }

    #[test]
    fn a_record_survives_the_file() {
        let row =
            Row { who: "a, b".into(), spread: Spread { median: 1.5, min: 1.0, max: 2.0, q1: 1.25, q3: 1.75, reps: 9 } };
        let mut record = Record::new("program");
        record.machine = "a \"fast\" one, 2 cores".into();
        record.rows.push(row);
        let path = env::temp_dir().join(format!("pagemill-bench-{}.csv", std::process::id()));
        record.write(&path).unwrap();
        let back = Record::<Row>::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!((back.machine, back.date), (record.machine, record.date));
        assert_eq!(back.rows[0].spread, record.rows[0].spread);
        assert_eq!(back.rows[0].who, "a, b");
    }
}
