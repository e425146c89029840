//! The list of scenarios.

mod any_unit;
mod bad_input;
mod exhaust;
mod fragment;
mod limits;
mod node;
mod odd_map;
mod offline;
mod remote;
mod split;
mod watermark;

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
    fragment::fragment_and_coalesce,
    split::partial_frees,
    remote::remote_free,
    remote::one_node_frees_anothers,
    node::fallback_and_bind,
    node::interleave_balance,
    watermark::watermarks,
    limits::dma_limits,
    odd_map::machine_of_16_mib,
    odd_map::machine_of_1_mib,
    odd_map::holes,
    odd_map::node_in_two_ranges,
    odd_map::overlapping_reserves,
    odd_map::above_4_gib,
    odd_map::memory_only_node,
    odd_map::sparse_3_tib,
    offline::offline_under_load,
    any_unit::units_of_256_bytes,
    any_unit::no_memory_behind,
    bad_input::bad_setup,
    bad_input::bad_requests,
    bad_input::bad_frees,
}
