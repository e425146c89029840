//! Exceptions and interrupts on one CPU: hooks, what kind of code is running, single step, the claim on the CPU's
//! pools.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-m 64M");

pagemill_bare::kernel! {
    tests: [
        a_page_fault_is_fixed_up,
        a_breakpoint_returns,
        an_invalid_instruction_is_skipped,
        the_context_is_told,
        a_handler_inside_a_handler,
        nmis_arrive_one_by_one,
        the_timer_ticks,
        single_step_counts_instructions,
        a_claimed_cpu_is_not_claimed_twice,
        locks_mask_until_the_last_is_released,
        printing_in_a_handler,
    ];

    use core::arch::asm;
    use core::hint::spin_loop;
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

    use lock_api::Mutex;
    use pagemill::{Context, Platform};
    use pagemill_bare::idt::{self, TrapFrame, hook};
    use pagemill_bare::percpu::{self, Bare, IrqLock};
    use pagemill_bare::{apic, cpu, print, smp};

    static COUNT: AtomicU32 = AtomicU32::new(0);
    static SEEN: AtomicU64 = AtomicU64::new(0);

    /// Hooks `vector` while `f` runs.
    fn with_hook(vector: u8, handler: idt::Hook, f: impl FnOnce()) {
        COUNT.store(0, Relaxed);
        SEEN.store(0, Relaxed);
        hook(vector, Some(handler));
        f();
        hook(vector, None);
        assert_eq!(percpu::context(), Context::Task);
    }

    fn count(_: &mut TrapFrame) {
        COUNT.fetch_add(1, Relaxed);
    }

    fn wait_for(count: u32) {
        while COUNT.load(Relaxed) < count {
            spin_loop();
        }
    }

    fn a_page_fault_is_fixed_up() {
        static BYTE: u8 = 42;
        assert_eq!(idt::probe((&raw const BYTE).addr() as u64), Some(42));
        for unmapped in [0x1234, 0xffff_9fff_ffff_0000, 0xffff_ffff_ffff_fff0] {
            assert_eq!(idt::probe(unmapped), None);
            assert_eq!(cpu::fault_address(), unmapped);
        }
    }

    fn a_breakpoint_returns() {
        with_hook(idt::BREAKPOINT, count, || {
            cpu::breakpoint();
            cpu::breakpoint();
            assert_eq!(COUNT.load(Relaxed), 2);
        });
    }

    fn an_invalid_instruction_is_skipped() {
        fn skip(frame: &mut TrapFrame) {
            frame.rip += 2;
            frame.rax = 7;
        }
        with_hook(idt::INVALID_OPCODE, skip, || {
            let value: u64;
            // SAFETY: the hook steps over the instruction, and changes rax alone.
            unsafe { asm!("ud2", out("rax") value) };
            assert_eq!(value, 7);
        });
    }

    fn remember_context(_: &mut TrapFrame) {
        SEEN.store(1 + percpu::context() as u64, Relaxed);
        COUNT.fetch_add(1, Relaxed);
    }

    fn the_context_is_told() {
        assert_eq!(percpu::context(), Context::Task);
        let contexts = [(idt::BREAKPOINT, Context::Nmi), (idt::NMI, Context::Nmi), (idt::CALL, Context::Atomic)];
        for (vector, context) in contexts {
            with_hook(vector, remember_context, || {
                match vector {
                    idt::BREAKPOINT => cpu::breakpoint(),
                    idt::NMI => smp::send_nmi(0),
                    vector => smp::send(0, vector),
                }
                wait_for(1);
                assert_eq!(SEEN.load(Relaxed), 1 + context as u64);
            });
        }
    }

    fn a_handler_inside_a_handler() {
        fn outer(_: &mut TrapFrame) {
            assert_eq!(percpu::context(), Context::Atomic);
            cpu::breakpoint();
            assert_eq!(percpu::context(), Context::Atomic);
            COUNT.fetch_add(1, Relaxed);
        }
        hook(idt::BREAKPOINT, Some(|_| assert_eq!(percpu::context(), Context::Nmi)));
        with_hook(idt::CALL, outer, || {
            smp::send(0, idt::CALL);
            wait_for(1);
        });
        hook(idt::BREAKPOINT, None);
    }

    fn nmis_arrive_one_by_one() {
        let before = percpu::this().exceptions();
        with_hook(idt::NMI, count, || {
            for sent in 1..=100 {
                smp::send_nmi(0);
                wait_for(sent);
            }
        });
        assert_eq!(COUNT.load(Relaxed), 100);
        assert_eq!(percpu::this().exceptions() - before, 100);
    }

    fn the_timer_ticks() {
        with_hook(idt::TIMER, remember_context, || {
            apic::start_timer(idt::TIMER, 50_000);
            wait_for(100);
            apic::stop_timer();
            assert_eq!(SEEN.load(Relaxed), 1 + Context::Atomic as u64);
        });
    }

    fn single_step_counts_instructions() {
        let steps = |work: fn()| {
            with_hook(idt::DEBUG, count, || cpu::single_step(work));
            COUNT.load(Relaxed)
        };
        let none = steps(|| {
            // SAFETY: no instruction at all.
            unsafe { asm!("") }
        });
        let ten = steps(|| {
            // SAFETY: ten times nothing.
            unsafe { asm!(".rept 10", "nop", ".endr") }
        });
        assert_eq!(ten - none, 10);
        assert!(none > 0);
    }

    fn a_claimed_cpu_is_not_claimed_twice() {
        fn try_it(_: &mut TrapFrame) {
            SEEN.fetch_add(u64::from(Bare::pin().is_some()), Relaxed);
            COUNT.fetch_add(1, Relaxed);
        }
        with_hook(idt::BREAKPOINT, try_it, || {
            let pinned = Bare::pin().expect("nobody has it");
            assert_eq!(pinned.cpu().index(), 0);
            assert!(Bare::pin().is_none());
            cpu::breakpoint();
            assert_eq!(SEEN.load(Relaxed), 0);
            drop(pinned);
            cpu::breakpoint();
            assert_eq!(SEEN.load(Relaxed), 1);
            drop(Bare::pin().expect("given back"));
        });
    }

    fn locks_mask_until_the_last_is_released() {
        let (one, two) = (Mutex::<IrqLock, u32>::new(1), Mutex::<IrqLock, u32>::new(2));
        assert!(cpu::interrupts_enabled());
        let first = one.lock();
        let second = two.lock();
        assert!(one.try_lock().is_none());
        assert!(!cpu::interrupts_enabled());
        drop(first);
        assert!(!cpu::interrupts_enabled(), "another lock is still held");
        drop(second);
        assert!(cpu::interrupts_enabled());
        cpu::disable_interrupts();
        drop(one.lock());
        assert!(!cpu::interrupts_enabled(), "they were off before");
        cpu::enable_interrupts();
    }

    fn printing_in_a_handler() {
        fn speak(_: &mut TrapFrame) {
            print!("(nmi) ");
            COUNT.fetch_add(1, Relaxed);
        }
        with_hook(idt::NMI, speak, || {
            smp::send_nmi(0);
            wait_for(1);
        });
    }
}
