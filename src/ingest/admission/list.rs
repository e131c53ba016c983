//! The registered devices, sorted.

use teltonika_codecs::Imei;

/// A list of devices, each once, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceList(Box<[Imei]>);

impl DeviceList {
    /// Whether a device is on it.
    #[must_use]
    pub fn contains(&self, imei: Imei) -> bool {
        self.0.binary_search(&imei).is_ok()
    }

    /// The number of devices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Imei> {
        self.0.iter().copied()
    }

    /// The devices that are not on the other list.
    pub(super) fn without(&self, other: &Self) -> Vec<Imei> {
        let mut others = other.iter().peekable();
        let mut only = Vec::new();
        for imei in self.iter() {
            while others.next_if(|other| *other < imei).is_some() {}
            if others.peek() != Some(&imei) {
                only.push(imei);
            }
        }
        only
    }
}

impl FromIterator<Imei> for DeviceList {
    fn from_iter<I: IntoIterator<Item = Imei>>(devices: I) -> Self {
        devices.into_iter().collect::<Vec<_>>().into()
    }
}

impl From<Vec<Imei>> for DeviceList {
    fn from(mut devices: Vec<Imei>) -> Self {
        devices.sort_unstable();
        devices.dedup();
        Self(devices.into_boxed_slice())
    }
}

/// The maximum number of devices in memory, 8 bytes each.
pub(crate) const DEVICES_MAX: usize = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(numbers: &[u64]) -> DeviceList {
        numbers.iter().map(|number| Imei::try_from(*number).unwrap()).collect()
    }

    #[test]
    fn a_list_has_each_device_once_and_in_order() {
        let devices = list(&[7, 3, 7, 5]);
        assert_eq!(devices.iter().map(Imei::get).collect::<Vec<_>>(), [3, 5, 7]);
        assert!(devices.contains(Imei::try_from(5).unwrap()) && !devices.contains(Imei::try_from(4).unwrap()));
    }

    #[test]
    fn the_difference_of_two_lists_is_what_only_the_first_one_has() {
        for (one, other, only) in [
            (&[1, 2, 3][..], &[2][..], &[1, 3][..]),
            (&[], &[1, 2], &[]),
            (&[1, 2], &[], &[1, 2]),
            (&[5, 9], &[1, 5, 7], &[9]),
            (&[4], &[4], &[]),
        ] {
            let gone = list(one).without(&list(other));
            assert_eq!(gone.iter().map(|imei| imei.get()).collect::<Vec<_>>(), only);
        }
    }
}
