//! The list of scenarios.

mod exhaust;

use crate::home::Home;
use crate::world::World;

/// A scenario: its name, and what it does. It fails by a panic.
pub struct Scenario<W: World> {
    /// Its name, an identifier.
    pub name: &'static str,
    body: fn(&W),
}

impl<W: World> Scenario<W> {
    /// Runs it, and asserts that the machine's own instance looks afterwards as it did before.
    ///
    /// # Panics
    /// If anything is not as it should be.
    pub fn run(&self, world: &W) {
        let home = Home::of(world, world.frames());
        (self.body)(world);
        home.assert_again(world, world.frames());
    }
}

macro_rules! list {
    ($($theme:ident :: $name:ident,)*) => {
        /// Every scenario, in the order in which they are best run: the plain ones first.
        pub fn scenarios<W: World>() -> [Scenario<W>; [$(stringify!($name)),*].len()] {
            [$(Scenario { name: stringify!($name), body: $theme::$name }),*]
        }

        /// Calls a macro with the names of all scenarios, for harnesses that want a function for each.
        #[macro_export]
        macro_rules! for_each_scenario {
            ($callback:ident) => { $callback! { $($name)* } };
        }
    };
}

list! {
    exhaust::exhaust_and_refill,
}
