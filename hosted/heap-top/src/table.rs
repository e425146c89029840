//! Sums by function, and stacks in one line.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

use crate::profile::Profile;

/// What a function asks for itself, and with what it calls.
#[derive(Clone, Copy, Default)]
struct Sums {
    own: i64,
    all: i64,
}

/// A list of functions, those with the most first.
pub(crate) fn list(profile: &Profile, which: usize, lines: usize, by_sum: bool) -> String {
    let mut functions: HashMap<&str, Sums> = HashMap::new();
    let mut total = 0;
    for (stack, values) in &profile.samples {
        let value = values[which];
        total += value;
        if let Some(first) = stack.first() {
            functions.entry(first).or_default().own += value;
        }
        // One that calls itself has it once.
        for name in stack.iter().collect::<HashSet<_>>() {
            functions.entry(name).or_default().all += value;
        }
    }
    let mut rows: Vec<_> = functions.into_iter().filter(|(_, sums)| sums.own != 0 || sums.all != 0).collect();
    let key = |sums: &Sums| if by_sum { (sums.all.abs(), sums.own.abs()) } else { (sums.own.abs(), sums.all.abs()) };
    rows.sort_by(|(name, sums), (other, others)| key(others).cmp(&key(sums)).then(name.cmp(other)));

    let (name, unit) = &profile.types[which];
    let shown = |value: i64| if unit == "bytes" { bytes(value) } else { value.to_string() };
    let share = |value: i64| if total == 0 { 0.0 } else { 100.0 * value as f64 / total as f64 };
    let mut text = format!("{name}: {} in all", shown(total));
    // A string takes all that is written.
    if profile.period != 0 {
        let _ = write!(text, ", by a sample each {}", bytes(profile.period as i64));
    }
    let _ = writeln!(text, "\n{:>12} {:>6}  {:>12} {:>6}  function", "own", "", "with calls", "");
    for (function, Sums { own, all }) in rows.iter().take(lines) {
        let (own_share, all_share) = (share(*own), share(*all));
        let _ =
            writeln!(text, "{:>12} {own_share:5.1}%  {:>12} {all_share:5.1}%  {function}", shown(*own), shown(*all));
    }
    if let Some(more) = rows.len().checked_sub(lines).filter(|&more| more != 0) {
        let _ = writeln!(text, "{more} more functions");
    }
    text
}

/// A line for each stack, the outermost function first: `main;parse;push 4096`.
pub(crate) fn folded(profile: &Profile, which: usize) -> String {
    let mut stacks: BTreeMap<String, i64> = BTreeMap::new();
    for (stack, values) in &profile.samples {
        // What separates functions, and what ends a stack, is in no name then.
        let names: Vec<_> = stack.iter().rev().map(|name| name.replace(';', ":").replace(' ', "_")).collect();
        *stacks.entry(names.join(";")).or_default() += values[which];
    }
    let mut text = String::new();
    for (stack, value) in stacks.into_iter().filter(|&(_, value)| value != 0) {
        // As above.
        let _ = writeln!(text, "{stack} {value}");
    }
    text
}

/// A number of bytes for people.
fn bytes(value: i64) -> String {
    let (mut scaled, mut unit) = (value as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if scaled.abs() < 1024.0 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, larger);
    }
    if unit == "B" { format!("{value} B") } else { format!("{scaled:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::file;

    #[test]
    fn who_asks_for_the_most_comes_first() {
        let profile = Profile::parse(&file()).unwrap();
        let text = list(&profile, 1, 2, false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "space: 520 B in all, by a sample each 512 B");
        assert_eq!(lines[2], "       500 B  96.2%         500 B  96.2%  leaf");
        assert_eq!(lines[3], "        20 B   3.8%         520 B 100.0%  main");
        assert_eq!(lines[4], "1 more functions");
        let by_sum = list(&profile, 1, 9, true);
        assert!(by_sum.lines().nth(2).unwrap().ends_with("main") && by_sum.lines().count() == 5, "{by_sum}");
        assert!(list(&profile, 0, 1, false).contains("           5  83.3%"));
    }

    #[test]
    fn stacks_are_folded() {
        let profile = Profile::parse(&file()).unwrap();
        assert_eq!(folded(&profile, 1), "main 20\nsome.so+0x28;main;leaf 500\n");
    }

    #[test]
    fn bytes_are_readable() {
        let texts = [0, -1023, 1024, 1 << 20, -(3 << 29)].map(bytes);
        assert_eq!(texts, ["0 B", "-1023 B", "1.0 KiB", "1.0 MiB", "-1.5 GiB"]);
    }
}
