//! The courses that trackers drive: the files in `fixtures/routes/`, driven once at their own speeds into one point a second.
//!
//! A course is closed: its first point follows its last.

use std::sync::LazyLock;

/// Where a car is at one second, in the units of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Longitude in 10⁻⁷ degrees.
    pub(super) longitude_raw: i32,
    /// Latitude in 10⁻⁷ degrees.
    pub(super) latitude_raw: i32,
    /// Metres above sea level.
    pub(super) altitude_m: i16,
    /// Degrees clockwise from north.
    pub(super) angle_deg: u16,
    /// Ground speed, km/h.
    pub(super) speed_kmh: u16,
    /// Metres from the beginning of the course.
    pub(super) driven_m: u32,
}

/// A course, point by point.
#[derive(Debug)]
pub(super) struct Course {
    points: Vec<Point>,
    length_m: u32,
}

impl Course {
    /// The course of a tracker. Courses alternate.
    pub(super) fn of(number: u32) -> &'static Self {
        static COURSES: LazyLock<[Course; 3]> = LazyLock::new(|| FILES.map(Course::read));
        let [rally, town, motorway] = &*COURSES;
        match number / 2 % 3 {
            0 => rally,
            1 => town,
            _ => motorway,
        }
    }

    /// The point at a second, and the metres driven since second 0 of the first lap.
    pub(super) fn at(&self, second: u64) -> (Point, u64) {
        let (lap, second) = (second / self.seconds(), second % self.seconds());
        let point = self.points[usize::try_from(second).unwrap_or(0)];
        (point, lap * u64::from(self.length_m) + u64::from(point.driven_m))
    }

    /// Seconds of a lap.
    pub(super) fn seconds(&self) -> u64 {
        self.points.len() as u64
    }

    /// Reads a file and drives it. The files are part of the program, and a test reads all of them.
    fn read(text: &str) -> Self {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.next(), Some(HEAD), "a course begins with its columns");
        let waypoints: Vec<_> = lines.map(Waypoint::read).collect();
        Self::drive(&waypoints)
    }

    fn drive(waypoints: &[Waypoint]) -> Self {
        let mut points = Vec::new();
        let (mut driven, mut left_over) = (0.0, 0.0);
        for at in 0..waypoints.len() {
            let around = [at + waypoints.len() - 1, at, at + 1, at + 2].map(|n| &waypoints[n % waypoints.len()]);
            let [_, from, to, _] = around;
            for _ in 0..from.wait_s {
                points.push(point(around, 0.0, 0.0, driven));
            }
            let length = from.metres_to(to);
            let mut along = left_over;
            while along < length {
                let share = along / length;
                let speed = from.speed_kmh + (to.speed_kmh - from.speed_kmh) * share;
                points.push(point(around, share, speed, driven + along));
                along += speed / 3.6;
            }
            (left_over, driven) = (along - length, driven + length);
        }
        Self { points, length_m: whole(driven) }
    }
}

/// A line of a file.
#[derive(Clone, Copy, Debug)]
struct Waypoint {
    longitude: f64,
    latitude: f64,
    altitude_m: f64,
    speed_kmh: f64,
    wait_s: u32,
}

impl Waypoint {
    fn read(line: &str) -> Self {
        let fields: Vec<f64> = line.split(',').map(|field| field.parse().expect("a number in a course")).collect();
        let [longitude, latitude, altitude_m, speed_kmh, wait_s] = fields[..] else { panic!("{line}: five columns") };
        assert!(speed_kmh >= SLOWEST_KMH, "{line}: too slow to arrive");
        Self { longitude, latitude, altitude_m, speed_kmh, wait_s: whole(wait_s) }
    }

    /// East and north of another, in metres. A course is small, so the ground is flat.
    fn metres(&self, to: &Self) -> (f64, f64) {
        let east = (to.longitude - self.longitude) * METRES_A_DEGREE * self.latitude.to_radians().cos();
        (east, (to.latitude - self.latitude) * METRES_A_DEGREE)
    }

    fn metres_to(&self, to: &Self) -> f64 {
        let (east, north) = self.metres(to);
        east.hypot(north).max(1.0)
    }
}

/// The point at a share of the way between the middle two, on a curve through all four. The curve is Catmull-Rom with the
/// distances between the points, because plain Catmull-Rom overshoots a short way next to a long one.
fn point(around: [&Waypoint; 4], share: f64, speed_kmh: f64, driven_m: f64) -> Point {
    let [arriving, length, leaving] = [0, 1, 2].map(|at| around[at].metres_to(around[at + 1]));
    let curve = |share: f64, of: fn(&Waypoint) -> f64| {
        let [before, from, to, behind] = around.map(of);
        let begin = (to - before) * length / (arriving + length);
        let end = (behind - from) * length / (length + leaving);
        let (two, three) = (share * share, share * share * share);
        from * (2.0 * three - 3.0 * two + 1.0)
            + begin * (three - 2.0 * two + share)
            + to * (3.0 * two - 2.0 * three)
            + end * (three - two)
    };
    let at = |share: f64| Waypoint {
        longitude: curve(share, |waypoint| waypoint.longitude),
        latitude: curve(share, |waypoint| waypoint.latitude),
        ..*around[1]
    };
    let (here, ahead) = (at(share), at(share + 0.01));
    let (east, north) = here.metres(&ahead);
    Point {
        longitude_raw: wire(here.longitude),
        latitude_raw: wire(here.latitude),
        altitude_m: i16::try_from(whole(curve(share, |waypoint| waypoint.altitude_m).max(0.0))).unwrap_or(i16::MAX),
        angle_deg: u16::try_from(whole(east.atan2(north).to_degrees().rem_euclid(360.0)) % 360).unwrap_or(0),
        speed_kmh: u16::try_from(whole(speed_kmh)).unwrap_or(u16::MAX),
        driven_m: whole(driven_m),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below 180 degrees in wire units is below 2^31")]
fn wire(degrees: f64) -> i32 {
    (degrees * 1e7).round() as i32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "metres, seconds and degrees of a course")]
fn whole(number: f64) -> u32 {
    number.round() as u32
}

const FILES: [&str; 3] = [
    include_str!("../../fixtures/routes/rally-stage.csv"),
    include_str!("../../fixtures/routes/town-loop.csv"),
    include_str!("../../fixtures/routes/motorway-transfer.csv"),
];
const HEAD: &str = "longitude,latitude,altitude_m,speed_kmh,wait_s";
const SLOWEST_KMH: f64 = 5.0;
const METRES_A_DEGREE: f64 = 111_320.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_course_is_closed_and_driven_at_its_speeds() {
        for (name, number) in [("rally stage", 0), ("town loop", 2), ("motorway", 4)] {
            let course = Course::of(number);
            assert!((200..4_000).contains(&course.seconds()), "{name} takes {} s", course.seconds());
            for second in 0..course.seconds() {
                let ((here, driven), (next, later)) = (course.at(second), course.at(second + 1));
                let metres = Waypoint::metres_to(&waypoint(here), &waypoint(next));
                // A curve is longer than its chord, and a point is rounded to a second.
                let fastest = f64::from(here.speed_kmh.max(next.speed_kmh)) / 3.6 * 1.7 + 6.0;
                assert!(metres <= fastest, "{name}: {metres} m in second {second} at {here:?}");
                assert!(later >= driven, "{name}: the odometer goes back at {second}");
                assert!(here.angle_deg < 360 && here.speed_kmh < 160);
            }
            let (first, _) = course.at(0);
            let (again, driven) = course.at(course.seconds());
            assert_eq!((first, u64::from(course.length_m)), (again, driven));
        }
    }

    fn waypoint(point: Point) -> Waypoint {
        let degrees = |raw: i32| f64::from(raw) / 1e7;
        let (longitude, latitude) = (degrees(point.longitude_raw), degrees(point.latitude_raw));
        Waypoint { longitude, latitude, altitude_m: 0.0, speed_kmh: 0.0, wait_s: 0 }
    }
}
