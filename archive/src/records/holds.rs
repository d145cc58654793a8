//! Reads the legal holds of an archive from their records.
//!
//! A hold consists of a record (`_holds/00000001`), which states the scope of the hold, and of
//! lists (`_holds/00000001-00000001` and so on), which name the objects with rows in that scope.
//!
//! Invariant: records are read in order, and reading stops at the first invalid record. A name is
//! used for one hold only, which is placed once and released once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_store::layout;

use super::keys;
use super::text::{Deed, HeldList, HeldObject, HoldRecord, Scope, Statement, open};
use crate::error::{LogError, RecordError};
use crate::record_fault::RecordFault;
use crate::site::Site;

/// Maximum number of records of holds, and of lists of one hold, that are read.
const RECORDS_MAX: u64 = 1_000_000;

/// A legal hold, as its records state it.
#[derive(Clone, Debug)]
pub struct Hold {
    pub record: HoldRecord,
    pub scope: Scope,
    /// Hash of the bytes of the hold's record.
    pub hash: Hash,
    pub released: Option<HoldRecord>,
    pub lists: Vec<HeldList>,
    /// How many of the two records of the hold (the one that places it and the one that releases
    /// it) are not signed.
    pub unsigned: u64,
}

/// All holds, and what is wrong with the first invalid record.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    pub all: Vec<Hold>,
    /// Number of records, including released holds and releases.
    pub records: u64,
    pub wrong: Option<RecordError>,
}

/// Returns the path of a record or a list of holds.
pub fn path(site: &Site, name: &str) -> PathBuf {
    site.root.join(layout::HOLDS).join(name)
}

/// Returns the name of a record of holds; records are numbered from 1 on.
pub fn record_name(number: u64) -> String {
    format!("{number:08}")
}

/// Returns the name of a list of objects under a hold; the lists of a hold are numbered from 1 on.
pub fn list_name(number: u64, part: u64) -> String {
    format!("{number:08}-{part:08}")
}

impl Hold {
    /// Whether the record that places the hold is signed. If so, only a signed record can release
    /// the hold.
    pub fn is_signed(&self) -> bool {
        self.unsigned == 0
    }

    /// True until the hold is released.
    pub fn is_active(&self) -> bool {
        self.released.is_none()
    }

    /// Returns every object under the hold. The hold's own record and lists are included, but
    /// without their versions.
    pub fn objects(&self) -> impl Iterator<Item = HeldObject> + '_ {
        let listed = self.lists.iter().flat_map(|list| list.objects.iter().cloned());
        let number = self.record.number;
        let own = (1..=self.lists.len() as u64).map(move |part| list_name(number, part));
        let own = own.chain([record_name(number)]);
        listed.chain(own.map(|name| HeldObject { path: format!("{}/{name}", layout::HOLDS), version: None }))
    }

    /// Objects on the lists of the hold.
    pub fn listed(&self) -> impl Iterator<Item = &HeldObject> {
        self.lists.iter().flat_map(|list| &list.objects)
    }
}

impl Holds {
    /// Reads and checks the records of holds, up to the first invalid one.
    pub async fn load(site: &Site) -> Result<Holds, LogError> {
        let names: BTreeSet<String> = site.record_names(layout::HOLDS).await?.into_iter().collect();
        let mut holds = Holds::default();
        if names.is_empty() {
            return Ok(holds);
        }
        let known = keys::known(site).await?.all();
        let signed_as = Statement::Holds.signed_as(&site.archive_id);
        let mut seen = 0;
        for number in 1..=RECORDS_MAX {
            let name = record_name(number);
            if !names.contains(&name) {
                break;
            }
            let path = path(site, &name);
            let bytes = site.read(&path).await?.unwrap_or_default();
            let taken = open(&bytes, &signed_as, &known).and_then(|(text, signer)| {
                let record = HoldRecord::parse(text, &site.archive_id, number)?;
                holds.take(record, Hash::of(&bytes), signer.is_none())
            });
            if let Err(fault) = taken {
                holds.wrong = Some(RecordError { path, fault });
                return Ok(holds);
            }
            (holds.records, seen) = (number, seen + 1);
            if !matches!(holds.all.last(), Some(hold) if hold.record.number == number) {
                continue;
            }
            for part in 1..=RECORDS_MAX {
                let name = list_name(number, part);
                if !names.contains(&name) {
                    break;
                }
                seen += 1;
                let path = self::path(site, &name);
                let bytes = site.read(&path).await?.unwrap_or_default();
                let list = open(&bytes, &signed_as, &known)
                    .and_then(|(text, _)| HeldList::parse(text, &site.archive_id, number, part));
                let hold = holds.all.last_mut().expect("it was just taken");
                match list {
                    Ok(list) if list.hold == hold.hash => hold.lists.push(list),
                    Ok(_) => {
                        let fault = RecordFault::OtherHold;
                        holds.wrong = Some(RecordError { path, fault });
                        return Ok(holds);
                    }
                    Err(fault) => {
                        holds.wrong = Some(RecordError { path, fault });
                        return Ok(holds);
                    }
                }
            }
        }
        if seen < names.len() {
            let fault = RecordFault::Names { count: names.len() - seen };
            holds.wrong = Some(RecordError { path: site.root.join(layout::HOLDS), fault });
        }
        Ok(holds)
    }

    /// Like [`Holds::load`], but an invalid record is an error.
    pub async fn load_valid(site: &Site) -> Result<Holds, LogError> {
        let holds = Holds::load(site).await?;
        match holds.wrong {
            None => Ok(holds),
            Some(wrong) => Err(wrong.into()),
        }
    }

    fn take(&mut self, record: HoldRecord, hash: Hash, is_unsigned: bool) -> Result<(), RecordFault> {
        let known = self.all.iter_mut().find(|hold| hold.record.name == record.name);
        match (record.deed.clone(), known) {
            (Deed::Place(scope), None) => {
                let unsigned = u64::from(is_unsigned);
                self.all.push(Hold { record, scope, hash, released: None, lists: Vec::new(), unsigned });
                Ok(())
            }
            // A party that can write to the archive without having the key must not be able to
            // release a hold that the owner of the key placed.
            (Deed::Release, Some(hold)) if hold.is_active() && is_unsigned && hold.is_signed() => {
                Err(RecordFault::ReleaseUnsigned)
            }
            (Deed::Release, Some(hold)) if hold.is_active() => {
                hold.unsigned += u64::from(is_unsigned);
                hold.released = Some(record);
                Ok(())
            }
            (Deed::Place(_), Some(_)) => Err(RecordFault::HoldTwice),
            (Deed::Release, _) => Err(RecordFault::HoldUnknown),
        }
    }

    /// Holds that were not released.
    pub fn active(&self) -> impl Iterator<Item = &Hold> {
        self.all.iter().filter(|hold| hold.is_active())
    }

    /// Returns the hold with this name, released or not.
    pub fn named(&self, name: &str) -> Option<&Hold> {
        self.all.iter().find(|hold| hold.record.name == name)
    }

    /// Returns the paths of all objects under an active hold.
    pub fn covered(&self) -> BTreeSet<String> {
        self.active().flat_map(Hold::objects).map(|object| object.path).collect()
    }
}
