// The atomic write lives in files/ because images (a lower layer) are written with it too.
export { writeFileAtomic, type AtomicWriteOptions, type FileParts } from "../files/atomic-write.js";
