//! The table form of a fact: its fields, the metric it counts in, and its log line.

/// Declares facts that have one log line each. A fact whose level or words depend on its values is written out instead.
///
/// An entry becomes a public struct with the given fields and a method `emit`. `emit` has the parameters of `counts`, runs its block, and logs
/// the line. The fields are variables in both. `in partition` in a line stands for the two fields that name a partition in every line: `stream`
/// and `partition`.
macro_rules! facts {
    (@log $level:ident in $partition:ident, $($line:tt)+) => {
        tracing::$level!(stream = %$partition.stream, partition = %$partition.partition, $($line)+)
    };
    (@log $level:ident $($line:tt)+) => {
        tracing::$level!($($line)+)
    };
    ($(
        $(#[$about:meta])*
        $name:ident $(<$of:lifetime>)? {
            $($(#[$about_field:meta])* $field:ident: $kind:ty,)*
        }
        $(counts($($metrics:ident: $metrics_kind:ty),+) { $($count:tt)+ })?
        $(#[$about_level:meta])*
        tracing::$level:ident!($($line:tt)+);
    )+) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name $(<$of>)? {
            $($(#[$about_field])* pub $field: $kind,)*
        }

        impl $(<$of>)? $name $(<$of>)? {
            $(#[$about_level])*
            pub fn emit(&self $($(, $metrics: $metrics_kind)+)?) {
                let Self { $($field),* } = *self;
                $($($count)+)?
                facts!(@log $level $($line)+);
            }
        }
    )+};
}
