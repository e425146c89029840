//! Four CPUs (16 in the long form): all at once, interrupts between them, locks, the idle hook.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-smp 4 full: -smp 16 timeout=180");

pagemill_bare::kernel! {
    tests: [
        all_cpus_are_up,
        work_runs_on_all_at_once,
        work_runs_on_one,
        interrupts_reach_every_cpu,
        nmis_reach_cpus_at_work,
        timers_tick_everywhere,
        a_lock_excludes_and_orders,
        idle_cpus_and_kicked_ones_call_the_hook,
        lines_do_not_mix,
        work_within_work_is_refused,
    ];

    use core::hint::spin_loop;
    use core::sync::atomic::{AtomicU32, Ordering::{AcqRel, Acquire, Relaxed}};

    use lock_api::Mutex;
    use pagemill_bare::idt::{self, TrapFrame, hook};
    use pagemill_bare::percpu::{self, IrqLock, area};
    use pagemill_bare::topology::MAX_CPUS;
    use pagemill_bare::{apic, harness, machine, println, smp};

    type Counts = [AtomicU32; MAX_CPUS];
    static COUNTS: Counts = [const { AtomicU32::new(0) }; MAX_CPUS];

    fn reset() {
        COUNTS.iter().for_each(|count| count.store(0, Relaxed));
    }

    fn count(_: &mut TrapFrame) {
        COUNTS[percpu::cpu() as usize].fetch_add(1, Relaxed);
    }

    fn counts() -> impl Iterator<Item = u32> {
        (0..percpu::online()).map(|cpu| COUNTS[cpu as usize].load(Relaxed))
    }

    fn all_cpus_are_up() {
        let cpus = percpu::online();
        assert_eq!(cpus as usize, machine::get().topology.cpus().len());
        assert_eq!(cpus, if harness::is_full() { 16 } else { 4 });
        for cpu in 0..cpus {
            let own = area(cpu).expect("an area");
            assert_eq!(own.cpu(), cpu);
            assert!((0..cpu).filter_map(area).all(|other| !core::ptr::eq(own, other) && own.apic() != other.apic()));
        }
        assert!(area(cpus).is_none());
        assert_eq!(percpu::cpu(), 0);
    }

    fn work_runs_on_all_at_once() {
        let here = AtomicU32::new(0);
        let areas = Counts::from(core::array::from_fn(|_| AtomicU32::new(0)));
        for round in 1..=50 {
            smp::on_all(&|cpu| {
                assert_eq!(cpu, percpu::cpu());
                assert!(core::ptr::eq(percpu::this(), area(cpu).expect("an area")));
                areas[cpu as usize].fetch_add(1, Relaxed);
                // Nobody leaves before all have come: they do run at the same time.
                here.fetch_add(1, AcqRel);
                while here.load(Acquire) < round * percpu::online() {
                    spin_loop();
                }
            });
        }
        let cpus = percpu::online() as usize;
        assert!(areas[..cpus].iter().all(|count| count.load(Relaxed) == 50));
    }

    fn work_runs_on_one() {
        for cpu in 0..percpu::online() {
            let ran = AtomicU32::new(u32::MAX);
            smp::on(cpu, &|number| {
                assert_eq!(number, percpu::cpu());
                ran.store(number, Relaxed);
            });
            assert_eq!(ran.load(Relaxed), cpu);
        }
    }

    fn interrupts_reach_every_cpu() {
        reset();
        hook(idt::CALL, Some(count));
        for round in 1..=20 {
            for cpu in 0..percpu::online() {
                smp::send(cpu, idt::CALL);
                while COUNTS[cpu as usize].load(Relaxed) < round {
                    spin_loop();
                }
            }
        }
        assert!(counts().all(|count| count == 20));
        hook(idt::CALL, None);
    }

    fn nmis_reach_cpus_at_work() {
        reset();
        hook(idt::NMI, Some(count));
        smp::on_all(&|cpu| {
            let next = (cpu + 1) % percpu::online();
            for _ in 0..50 {
                smp::send_nmi(next);
            }
            // Several on their way become one, but one always arrives.
            while COUNTS[cpu as usize].load(Relaxed) == 0 {
                spin_loop();
            }
        });
        hook(idt::NMI, Some(|_| {}));
    }

    fn timers_tick_everywhere() {
        reset();
        hook(idt::TIMER, Some(count));
        let before = percpu::this().interrupts();
        smp::on_all(&|cpu| {
            apic::start_timer(idt::TIMER, 100_000);
            while COUNTS[cpu as usize].load(Relaxed) < 50 {
                spin_loop();
            }
            apic::stop_timer();
        });
        assert!(percpu::this().interrupts() - before >= 50);
    }

    fn a_lock_excludes_and_orders() {
        const ROUNDS: u32 = 2000;
        let pair = Mutex::<IrqLock, (u32, u32)>::new((0, 0));
        smp::on_all(&|_| {
            for _ in 0..ROUNDS {
                let mut pair = pair.lock();
                pair.0 += 1;
                assert_eq!(pair.0, pair.1 + 1);
                pair.1 += 1;
            }
        });
        assert_eq!(pair.into_inner().0, ROUNDS * percpu::online());
    }

    fn idle_cpus_and_kicked_ones_call_the_hook() {
        reset();
        assert!(smp::add_idle_hook(|| {}));
        assert!(smp::add_idle_hook(|| {
            COUNTS[percpu::cpu() as usize].fetch_add(1, Relaxed);
        }));
        assert!(smp::add_idle_hook(|| {}) && smp::add_idle_hook(|| {}));
        assert!(!smp::add_idle_hook(|| {}), "there are four already");
        // Sleeping or not, a kick is answered.
        for _ in 0..20 {
            reset();
            smp::kick_others();
            while counts().skip(1).any(|count| count == 0) {
                spin_loop();
            }
        }
    }

    fn lines_do_not_mix() {
        println!();
        smp::on_all(&|cpu| println!("  CPU {cpu} on node {} says a line of its own", percpu::node()));
    }

    fn work_within_work_is_refused() {
        harness::expect_panic("cannot be given out by such work");
        smp::on_all(&|_| smp::on_all(&|_| {}));
    }
}
