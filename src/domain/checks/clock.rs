//! This machine's clock, compared with the clocks of the services.

use super::Finding;

/// From this difference on, there is a warning: clocks kept by NTP differ by far less.
const WARN_SECONDS: f64 = 30.0;
/// From this difference on, signatures and tokens are refused: Entra ID and the services allow for five minutes.
const FAIL_SECONDS: f64 = 300.0;

/// The difference between the `Date` of a service's answer and this machine's clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The service.
    pub service: String,
    /// How many seconds this machine is ahead; negative if it is behind.
    pub ahead_seconds: f64,
    /// The uncertainty in seconds: half of the round-trip time, plus half of the one-second resolution of a `Date`.
    pub uncertainty_seconds: f64,
}

impl Measured {
    /// Computes the difference from the service's time (in whole seconds) and our own time before the request and after
    /// the answer, all in seconds since any fixed start.
    pub fn new(service: impl Into<String>, date: f64, asked: f64, answered: f64) -> Self {
        let middle = f64::midpoint(asked, answered);
        Self {
            service: service.into(),
            ahead_seconds: middle - (date + 0.5),
            uncertainty_seconds: 0.5 + (answered - asked).abs() / 2.0,
        }
    }

    /// The part of the difference that is certain, in seconds.
    fn certain(&self) -> f64 {
        (self.ahead_seconds.abs() - self.uncertainty_seconds).max(0.0)
    }

    fn words(&self) -> String {
        let side = if self.ahead_seconds < 0.0 { "behind" } else { "ahead of" };
        format!("{:.0} s {side} {}", self.ahead_seconds.abs(), self.service)
    }
}

/// Evaluates the measurements of all services that answered.
pub fn clock(measured: &[Measured]) -> Finding {
    const REMEDY: &str =
        "let NTP set this machine's clock, e.g. `timedatectl set-ntp true`, or correct the clock of its host";
    let worst = measured.iter().max_by(|a, b| a.certain().total_cmp(&b.certain()));
    let Some(worst) = worst else {
        return Finding::Skipped("no service that reports its time has answered".to_owned());
    };
    let text = format!("this machine's clock is {}", worst.words());
    if worst.certain() >= FAIL_SECONDS {
        Finding::fail("CLOCK_SKEW", format!("{text}: tokens and signatures are refused"), REMEDY)
    } else if worst.certain() >= WARN_SECONDS {
        Finding::warn(
            "CLOCK_SKEW",
            format!("{text}: from 5 min on, tokens and signatures are refused"),
            REMEDY,
        )
    } else {
        let names: Vec<_> = measured.iter().map(|measured| measured.service.as_str()).collect();
        Finding::ok(format!(
            "agrees with the time of {}, within {:.0} s",
            names.join(", "),
            worst.ahead_seconds.abs().ceil().max(1.0)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checks::Verdict;

    #[test]
    fn only_what_is_certain_of_a_difference_counts() {
        let verdict = |ahead: f64, way: f64| {
            let date = 1_000_000.0;
            // The answer was created in the middle of its second.
            let asked = date + 0.5 + ahead - way / 2.0;
            clock(&[Measured::new("x", date, asked, asked + way)]).verdict()
        };
        assert_eq!((verdict(0.0, 0.1), verdict(30.0, 0.1)), (Verdict::Ok, Verdict::Ok));
        assert_eq!((verdict(31.0, 0.1), verdict(-31.0, 0.1)), (Verdict::Warn, Verdict::Warn));
        assert_eq!((verdict(301.0, 0.1), verdict(-301.0, 0.1)), (Verdict::Fail, Verdict::Fail));
        assert_eq!(verdict(35.0, 20.0), Verdict::Ok, "a slow answer is no proof");
    }

    #[test]
    fn the_worst_service_is_named_and_none_is_no_verdict() {
        let measured = |service: &str, ahead_seconds| Measured {
            service: service.into(),
            ahead_seconds,
            uncertainty_seconds: 0.5,
        };
        let found = clock(&[measured("Cosmos DB", 1.0), measured("the IoT hub", -400.0)]);
        assert_eq!(found.verdict(), Verdict::Fail);
        assert!(found.text().contains("400 s behind the IoT hub"), "{found:?}");
        assert_eq!(clock(&[]).verdict(), Verdict::Skipped);
    }
}
