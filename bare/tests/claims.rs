//! Claims to one desk, to the other, and to the CPU, one instruction at a time: the handler of the debug exception
//! tries all of them at each step of all of them. No desk may be had twice, each must be found as it was left, and a
//! platform that looks at one desk only, or claims only one, must be caught.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-m 64M");

pagemill_bare::kernel! {
    tests: [
        claims_exclude_each_other,
        who_looks_at_one_desk_only_is_caught,
        who_claims_one_desk_only_is_caught,
    ];

    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use pagemill::{Context, CpuId, Desk, Platform};
    use pagemill_bare::idt::{self, TrapFrame};
    use pagemill_bare::percpu::{Bare, IrqLock};
    use pagemill_bare::{cpu, print};

    const FRAMES: usize = Desk::FRAMES;
    const OBJECTS: usize = Desk::OBJECTS;

    /// Who is at each desk: nobody, or one.
    static AT: [AtomicU32; Desk::COUNT] = [const { AtomicU32::new(0) }; Desk::COUNT];
    /// Claims of the handler: to each desk, and to the CPU.
    static GOT: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    static REFUSED: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    /// Desks that were had twice, or were not as they had been left.
    static WRONG: AtomicU32 = AtomicU32::new(0);

    /// Works with what lies on a desk, which nobody else may do now.
    fn use_desk(which: usize, work: impl FnOnce()) {
        if AT[which].fetch_add(1, Relaxed) != 0 {
            WRONG.fetch_add(1, Relaxed);
        }
        work();
        AT[which].fetch_sub(1, Relaxed);
    }

    /// Claims a desk and works; whether it could be had.
    fn by_desk<const WHICH: usize, P: Platform>(work: impl FnOnce()) -> bool {
        let desk = P::take_desk::<WHICH>();
        if desk != Desk::CLAIMED {
            use_desk(WHICH, work);
        }
        // SAFETY: it was taken there.
        unsafe { P::put_desk::<WHICH>(desk) };
        desk != Desk::CLAIMED
    }

    /// Claims the CPU and works; whether it could be had.
    fn by_number<P: Platform>(work: impl FnOnce()) -> bool {
        let Some(pinned) = P::pin() else { return false };
        use_desk(FRAMES, || use_desk(OBJECTS, work));
        drop(pinned);
        true
    }

    /// What lies on the desks.
    fn seen<P: Platform>() -> [Desk; Desk::COUNT] {
        let (frames, objects) = (P::take_desk::<FRAMES>(), P::take_desk::<OBJECTS>());
        // SAFETY: it was taken there.
        unsafe { P::put_desk::<OBJECTS>(objects) };
        // SAFETY: it was taken there.
        unsafe { P::put_desk::<FRAMES>(frames) };
        [frames, objects]
    }

    /// The handler: every claim, and all of them inside each other.
    fn step<P: Platform>(_: &mut TrapFrame) {
        // Once something is broken there is no telling what else happens.
        if WRONG.load(Relaxed) != 0 {
            return;
        }
        let before = seen::<P>();
        let nested = || {
            by_desk::<OBJECTS, P>(|| ());
            if by_number::<P>(|| ()) {
                WRONG.fetch_add(1, Relaxed);
            }
        };
        let got = [by_desk::<FRAMES, P>(nested), by_desk::<OBJECTS, P>(|| ()), by_number::<P>(|| ())];
        for (index, got) in got.into_iter().enumerate() {
            let counters = if got { &GOT } else { &REFUSED };
            counters[index].fetch_add(1, Relaxed);
        }
        if seen::<P>() != before {
            WRONG.fetch_add(1, Relaxed);
        }
    }

    /// Every claim and every claim within a claim, one instruction at a time; how often something was wrong.
    fn wrong_after_all_claims<P: Platform>() -> u32 {
        WRONG.store(0, Relaxed);
        AT.iter().chain(&GOT).chain(&REFUSED).for_each(|counter| counter.store(0, Relaxed));
        idt::hook(idt::DEBUG, Some(step::<P>));
        cpu::single_step(|| {
            by_number::<P>(|| ());
            by_desk::<FRAMES, P>(|| ());
            by_desk::<OBJECTS, P>(|| ());
            by_desk::<OBJECTS, P>(|| {
                by_desk::<FRAMES, P>(|| ());
                by_number::<P>(|| ());
            });
            by_desk::<FRAMES, P>(|| {
                by_desk::<OBJECTS, P>(|| ());
            });
            by_number::<P>(|| {
                by_desk::<FRAMES, P>(|| ());
                by_number::<P>(|| ());
            });
        });
        idt::hook(idt::DEBUG, None);
        WRONG.load(Relaxed)
    }

    fn claims_exclude_each_other() {
        assert_eq!(wrong_after_all_claims::<Bare>(), 0);
        for (got, refused) in GOT.iter().zip(&REFUSED) {
            let (got, refused) = (got.load(Relaxed), refused.load(Relaxed));
            assert!(got > 0 && refused > 0, "{got} got, {refused} refused");
            print!("({got} {refused}) ");
        }
        assert_eq!(seen::<Bare>(), [Desk::EMPTY; Desk::COUNT]);
    }

    /// As `Bare`, except that a claim by number does not look at all desks, or does not claim all.
    struct Mutant<const LOOKS: bool>;

    // SAFETY: it breaks the promise that is at stake, and nothing ever lies on the desks that it could lead to.
    unsafe impl<const LOOKS: bool> Platform for Mutant<LOOKS> {
        type Lock = IrqLock;

        fn enter() -> Option<CpuId> {
            let [frames, objects] = seen::<Bare>();
            if frames == Desk::CLAIMED || LOOKS && objects == Desk::CLAIMED {
                return None;
            }
            Bare::take_desk::<FRAMES>();
            if !LOOKS {
                Bare::take_desk::<OBJECTS>();
            }
            Some(CpuId::new(0))
        }

        fn leave(_: CpuId) {
            // SAFETY: at the end of a claim the desks are as empty as they were before.
            unsafe { Bare::put_desk::<OBJECTS>(Desk::EMPTY) };
            // SAFETY: as above.
            unsafe { Bare::put_desk::<FRAMES>(Desk::EMPTY) };
        }

        fn context() -> Context {
            Bare::context()
        }

        const HAS_DESKS: bool = true;

        fn take_desk<const WHICH: usize>() -> Desk {
            Bare::take_desk::<WHICH>()
        }

        unsafe fn put_desk<const WHICH: usize>(desk: Desk) {
            // SAFETY: the caller's promise.
            unsafe { Bare::put_desk::<WHICH>(desk) };
        }
    }

    fn who_looks_at_one_desk_only_is_caught() {
        assert!(wrong_after_all_claims::<Mutant<false>>() > 0);
    }

    fn who_claims_one_desk_only_is_caught() {
        assert!(wrong_after_all_claims::<Mutant<true>>() > 0);
    }
}
