//! token/budget
