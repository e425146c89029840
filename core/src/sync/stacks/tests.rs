use super::*;

fn class(bytes: usize) -> SizeClass {
    SizeClass::all().find(|class| class.bytes() == bytes).unwrap()
}

#[test]
fn a_stack_gives_back_what_was_put_in_last_and_spills_what_was_first() {
    let (stacks, class) = (Stacks::new(), class(48));
    assert!(!stacks.push(class, 1), "it may hold nothing yet");
    stacks.set_limit(class, 4);
    assert!((1..=4).all(|round| stacks.push(class, round)) && !stacks.push(class, 5));
    stacks.take_oldest(class, 3, |oldest| assert_eq!(oldest, [1, 2, 3]));
    assert_eq!(stacks.len(class), 1);
    assert_eq!(
        (stacks.pop_and_peek(class, Reach::Folded).map(|(round, _)| round), stacks.pop_and_peek(class, Reach::Folded)),
        (Some(4), None)
    );
}

#[test]
fn limits_stay_between_what_is_there_and_what_there_is_room_for() {
    let (stacks, class) = (Stacks::new(), class(32768));
    stacks.set_limit(class, 1000);
    assert_eq!(stacks.limit(class), class.stack_capacity());
    stacks.refill(class, 100, |rounds| {
        rounds.fill(1);
        rounds.len()
    });
    assert_eq!(stacks.len(class), class.stack_capacity());
    stacks.set_limit(class, 0);
    assert_eq!(stacks.limit(class), class.stack_capacity());
    stacks.take_oldest(class, 100, |oldest| assert_eq!(oldest.len(), class.stack_capacity()));
    assert_eq!(stacks.len(class), 0);
    stacks.set_limit(class, 0);
    assert!(!stacks.push(class, 1));
}

#[test]
fn a_stack_moves_when_it_becomes_deep_and_back_with_what_it_holds() {
    let (stacks, class) = (Stacks::new(), class(1024));
    let two = 2 * class.batch();
    stacks.set_limit(class, two);
    assert!((1..=two).all(|round| stacks.push(class, 100 + round)) && !stacks.push(class, 1));
    assert!(!stacks.mark(class, 0, 0), "a mark makes none deep");
    stacks.set_limit(class, usize::MAX);
    let more = class.stack_capacity() - two;
    assert_eq!(stacks.limit(class), two + more);
    assert_eq!(more > 0, cfg!(feature = "deep-pools"));
    assert!((1..=more).all(|round| stacks.push(class, 100 + two + round)) && !stacks.push(class, 1));
    stacks.take_oldest(class, more, |oldest| assert_eq!(oldest.first(), (more > 0).then_some(&101)));
    stacks.set_limit(class, 0);
    assert_eq!((stacks.len(class), stacks.limit(class)), (two, two));
    assert!(
        (1..=two).rev().all(|round| {
            stacks.pop_and_peek(class, Reach::Folded).is_some_and(|(top, _)| top == 100 + more + round)
        })
    );
    assert_eq!(stacks.pop_and_peek(class, Reach::Folded), None);
}

#[test]
fn a_marked_round_is_not_for_a_pop_and_loses_its_mark_when_it_leaves() {
    let (stacks, class) = (Stacks::new(), class(48));
    let pop = || stacks.pop_and_peek(class, Reach::Folded).map(|(round, _)| round);
    assert!(!stacks.mark(class, 0, 0) && stacks.pop_marked(class).is_none(), "it is empty");
    stacks.set_limit(class, 4);
    assert!((101..=104).all(|round| stacks.push(class, round)));
    assert!(stacks.mark(class, 1, 0) && stacks.mark(class, 4, 7) && !stacks.mark(class, 1, 0));
    assert_eq!((stacks.objects(class), stacks.len(class)), (4, 7));
    assert_eq!((pop(), pop(), stacks.pop_marked(class)), (Some(104), None, Some((103, 0))));
    assert!(stacks.push(class, 105), "a mark is no end");
    assert_eq!((pop(), pop(), pop(), stacks.pop_marked(class)), (Some(105), Some(102), None, Some((101, 7))));
    assert_eq!((stacks.len(class), stacks.objects(class), pop()), (0, 0, None));
    assert!((201..=204).all(|round| stacks.push(class, round)));
    assert!(stacks.mark(class, 2, 9) && stacks.mark(class, 0, 0));
    stacks.take_oldest(class, 2, |oldest| assert_eq!(oldest, [201, 202]));
    assert_eq!((stacks.objects(class), stacks.len(class)), (2, 3));
    stacks.take_oldest(class, 9, |oldest| assert_eq!(oldest, [203, 204]));
    assert_eq!((stacks.objects(class), stacks.len(class)), (0, 0));
}

#[test]
fn a_mark_needs_room() {
    let (stacks, class) = (Stacks::new(), class(32768));
    stacks.set_limit(class, usize::MAX);
    let rounds = class.stack_capacity();
    assert!((1..=rounds).all(|round| stacks.push(class, 100 + round)) && !stacks.mark(class, 0, 0));
    assert!(
        stacks.pop_and_peek(class, Reach::Folded).is_some() && !stacks.mark(class, 0, 1) && stacks.mark(class, 0, 0)
    );
}

#[test]
fn stacks_lie_side_by_side() {
    let stacks = Stacks::new();
    // Under Miri the short ones, of which there are enough.
    let classes = || SizeClass::all().filter(|class| !cfg!(miri) || class.stack_capacity() <= 8);
    for class in classes() {
        stacks.set_limit(class, usize::MAX);
        (0..class.stack_capacity()).for_each(|place| assert!(stacks.push(class, (class.index() << 8) | (place + 1))));
    }
    for class in classes() {
        (0..class.stack_capacity()).rev().for_each(|place| {
            assert_eq!(
                stacks.pop_and_peek(class, Reach::Folded).map(|(round, _)| round),
                Some((class.index() << 8) | (place + 1))
            );
        });
    }
    const { assert!(BOTTOM[SizeClass::COUNT] as usize * size_of::<usize>() < 57 << 10) };
    const { assert!(cfg!(feature = "deep-pools") || ROUNDS == BOTTOM[SizeClass::COUNT] as usize) };
}
