//! A kernel that runs one scenario.

use pagemill_bare::frames;
use pagemill_tests::scenarios;

use crate::world::Machine;

/// Gives the machine to pagemill, and runs one scenario on it.
pub(crate) fn run(name: &str) {
    let handover = frames::init();
    assert_eq!((handover.left_out, handover.problems), (0, 0));
    let all = scenarios::<Machine>();
    all.iter().find(|scenario| scenario.name == name).expect("the list has it").run(&Machine);
}
