//! Whether maps that are pinned already are what this build's programs expect.
//!
//! aya 0.14 takes a pinned map of the right name without a look at it.

use std::{collections::HashMap, fmt, io, path::Path};

use aya::maps::{MapError, MapInfo};
use aya_obj::Object;
use vnet_common::names::map;

use super::{
    DatapathError,
    error::{os_error, reason},
    sizes::Sizes,
};

/// The attributes that a map is made with and keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map_type, key_size, value_size, max_entries, flags } = self;
        write!(f, "type {map_type}, key {key_size}, value {value_size}, {max_entries} entries, flags {flags:#x}")
    }
}

impl From<&aya_obj::Map> for Shape {
    fn from(map: &aya_obj::Map) -> Self {
        Self {
            map_type: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
            flags: map.map_flags(),
        }
    }
}

impl TryFrom<&MapInfo> for Shape {
    type Error = MapError;

    fn try_from(info: &MapInfo) -> Result<Self, MapError> {
        Ok(Self {
            map_type: info.map_type()? as u32,
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
            flags: info.map_flags(),
        })
    }
}

/// Compares each map in `directory` with the object's; maps that are not there yet are none's business.
pub(super) fn check(object: &[u8], directory: &Path, sizes: Sizes) -> Result<(), DatapathError> {
    let object = Object::parse(object).map_err(|error| DatapathError::Object(reason(&error)))?;
    for name in map::ALL {
        let mut wanted = wanted(&object.maps, name)?;
        if let Some((_, entries)) = sizes.entries().iter().find(|(sized, _)| *sized == name) {
            wanted.max_entries = *entries;
        }
        let failed = |error: MapError| DatapathError::Pins {
            action: "look at",
            path: directory.join(name),
            source: io::Error::other(reason(&error)),
        };
        let found = match MapInfo::from_pin(directory.join(name)) {
            Ok(info) => Shape::try_from(&info).map_err(failed)?,
            Err(error) if os_error(&error) == Some(libc::ENOENT) => continue,
            Err(error) => return Err(failed(error)),
        };
        if found != wanted {
            return Err(DatapathError::ForeignMap {
                map: name,
                directory: directory.to_owned(),
                found: found.to_string(),
                wanted: wanted.to_string(),
            });
        }
    }
    Ok(())
}

fn wanted(maps: &HashMap<String, aya_obj::Map>, name: &'static str) -> Result<Shape, DatapathError> {
    maps.get(name).map(Shape::from).ok_or_else(|| DatapathError::Object(format!("it has no map {name}")))
}
