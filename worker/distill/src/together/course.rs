//! Where a shared training is in its data: which batches a round takes, and which of them a machine.

/// The order of a training's batches, pass by pass, and how far it is. A round never reaches over the end of a
/// pass; what is left of one is cut into rounds of like length, since each costs as much to tell of.
pub(crate) struct Course {
    plan: Vec<Vec<Vec<usize>>>,
    /// Steps of a machine in a round, about.
    steps: usize,
    /// The pass that the next round belongs to, from 0, and how many of its batches are done.
    at: (usize, usize),
    /// Batches done.
    done: u32,
    /// Batches of all passes.
    pub all: u32,
}

/// A round's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Its pass, from 1.
    pub epoch: u32,
    /// Whether the pass begins with it.
    pub begins: bool,
    /// Whether the pass ends with it.
    pub ends: bool,
    /// Batches before it.
    pub first: u32,
    /// Its own.
    pub batches: Vec<Vec<usize>>,
    /// Batches after it.
    pub left: u32,
}

impl Course {
    /// From the beginning.
    pub fn new(plan: Vec<Vec<Vec<usize>>>, steps: usize) -> Self {
        let all = plan.iter().map(|epoch| epoch.len() as u32).sum();
        Self { plan, steps, at: (0, 0), done: 0, all }
    }

    /// Batches done.
    pub fn done(&self) -> u32 {
        self.done
    }

    /// The next round among so many machines; none after the last.
    pub fn next(&mut self, machines: usize) -> Option<Stretch> {
        let (epoch, from) = self.at;
        let batches = self.plan.get(epoch)?;
        let (left, usual) = (batches.len() - from, self.steps * machines.max(1));
        // As many rounds as come nearest to the usual length.
        let rounds = ((2 * left + usual) / (2 * usual)).max(1);
        let to = from + left.div_ceil(rounds);
        let own = batches.get(from..to).unwrap_or_default().to_vec();
        let ends = to == batches.len();
        let first = self.done;
        self.done += own.len() as u32;
        self.at = if ends { (epoch + 1, 0) } else { (epoch, to) };
        let left = self.all - self.done;
        let epoch = epoch as u32 + 1;
        Some(Stretch { epoch, begins: from == 0, ends, first, batches: own, left })
    }
}

impl Stretch {
    /// Batches of the whole training.
    pub fn all(&self) -> u32 {
        self.first + self.batches.len() as u32 + self.left
    }

    /// The batches of machine `at` of `of`, each with its place in the whole: they are dealt in turn, so that
    /// their lengths, which go up and down, are alike.
    pub fn part(&self, (at, of): (usize, usize)) -> impl Iterator<Item = (u32, &[usize])> {
        let places = (self.first..).zip(self.batches.iter().map(Vec::as_slice));
        places.skip(at).step_by(of.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Vec<Vec<Vec<usize>>> {
        vec![(0..7).map(|n| vec![n]).collect(), (7..12).map(|n| vec![n]).collect()]
    }

    #[test]
    fn every_batch_is_one_machine_s_whoever_comes_and_goes() {
        let mut course = Course::new(plan(), 2);
        let (mut seen, mut rounds) = (Vec::new(), Vec::new());
        for machines in [1, 2, 3, 1, 5] {
            let Some(round) = course.next(machines) else { break };
            for at in 0..machines {
                for (place, batch) in round.part((at, machines)) {
                    assert_eq!(batch, [place as usize]);
                    seen.push(place);
                }
            }
            rounds.push((round.epoch, round.begins, round.ends, round.left));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..12).collect::<Vec<_>>());
        let wanted = [(1, true, false, 10), (1, false, true, 5)];
        assert_eq!(rounds[..2], wanted);
        assert_eq!(rounds[2..], [(2, true, true, 0)]);
        assert!(course.next(1).is_none());
        assert_eq!((course.done(), course.all), (12, 12));
    }
}
