//! Several threads that do the same.

/// What each of at most `most` threads makes of `work`, this one first. Where there are no threads to be had, those that there are do all.
pub fn by_threads<T: Send>(most: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let spawn = || std::thread::Builder::new().spawn_scoped(scope, &work).ok();
        let workers: Vec<_> = (1..most).map_while(|_| spawn()).collect();
        let own = work();
        let others = workers.into_iter().map(|worker| worker.join().expect("a reading thread does not panic"));
        [own].into_iter().chain(others).collect()
    })
}
