//! OCSF 1.8 Detection Finding (class 2004), made from an [`crate::Alert`].
