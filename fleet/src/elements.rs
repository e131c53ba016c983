//! The elements that an FMB920 (Codec 8) and an FMB003 (Codec 8 Extended) send: sorted by width, as on the wire.

use teltonika_codecs::AvlCodec;

/// An element: its id, and its bytes on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElementSpec {
    pub(super) id: u16,
    pub(super) width: usize,
}

/// Values of a record: first the [`BASE`] ones, then the occasional ones. Which of these a record has depends on its model.
pub(super) type ElementValues = [u64; 19];

/// The elements of a record. Every record has the permanent ones; those of the vehicle's bus and the SIM are occasional.
pub(super) fn specs(codec: AvlCodec, full: bool) -> &'static [ElementSpec] {
    match (codec, full) {
        (AvlCodec::Codec8E, true) => &FMB003,
        (AvlCodec::Codec8E, false) => &FMB003[..BASE],
        (AvlCodec::Codec8 | AvlCodec::Codec16, true) => &FMB920,
        (AvlCodec::Codec8 | AvlCodec::Codec16, false) => &FMB920[..BASE],
    }
}

const fn spec(id: u16, width: usize) -> ElementSpec {
    ElementSpec { id, width }
}

/// Elements in each record.
const BASE: usize = 15;

const FMB920: [ElementSpec; 19] = [
    spec(239, 1), // ignition
    spec(240, 1), // movement
    spec(80, 1),  // data mode
    spec(21, 1),  // GSM signal
    spec(200, 1), // sleep mode
    spec(69, 1),  // GNSS status
    spec(181, 2), // PDOP
    spec(182, 2), // HDOP
    spec(66, 2),  // external voltage
    spec(24, 2),  // speed
    spec(205, 2), // GSM cell
    spec(67, 2),  // battery voltage
    spec(17, 2),  // axis X
    spec(241, 4), // GSM operator
    spec(16, 4),  // total odometer
    spec(13, 2),  // fuel rate by GNSS
    spec(12, 4),  // fuel used by GNSS
    spec(15, 2),  // eco score
    spec(11, 8),  // SIM
];

const FMB003: [ElementSpec; 19] = {
    let mut specs = FMB920;
    specs[11] = spec(206, 2); // GSM area: this model has almost no battery
    specs[15] = spec(31, 1); // engine load, by OBD
    specs[16] = spec(36, 2); // engine speed
    specs[17] = spec(48, 1); // fuel level
    specs
};
