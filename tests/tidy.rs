//! Layout rules of the tree.
