//! OCSF 1.8 Detection Finding (class 2004), made from an [`crate::Alert`].

use serde::Serialize;

use crate::Alert;

/// A finding of one alert.
#[derive(Clone, Debug, Serialize)]
pub struct DetectionFinding {
    time: i64,
}

/// The finding of an alert.
pub fn detection_finding(alert: &Alert) -> DetectionFinding {
    DetectionFinding { time: alert.time_us / 1000 }
}
