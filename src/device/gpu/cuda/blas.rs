//! cuBLASLt: what our products are compared with, and checked against (`--gemm cublaslt`). Loaded
//! when it is asked for; without it a benchmark says so and has a column less.
//!
//! The system's loader looks for it, so LD_LIBRARY_PATH counts (pip has it in
//! `nvidia/cu13/lib`): `libcublasLt.so`, then with the endings of versions, `.13` before `.12`.
//!
//! The library knows matrices by columns: one of ours, [r, c] by rows, is a c × r matrix to it, of
//! leading dimension c. So each of the three products of training is the transpose of ours,
//! D = op(A) · op(B) with D of m × n and an inner dimension k:
//!   y  [N, O]  = x [N, I] · W [O, I]ᵀ    yᵀ  = W · xᵀ     m n k = O N I   A = Wᵀ, B = x
//!   dx [N, I]  = dy [N, O] · W [O, I]    dxᵀ = Wᵀ · dyᵀ   m n k = I N O   A = W,  B = dy
//!   dW [O, I] += dy [N, O]ᵀ · x [N, I]   dWᵀ += xᵀ · dy   m n k = I O N   A = x,  B = dyᵀ
//! bf16 in, sums in f32, out in bf16, or f32 for dW.
//!
//! Held to a library made for tests (`tests/cuda/blas.cpp`); unmeasured on a GPU.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::zeroed;
use std::ptr::from_ref;
use std::rc::Rc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulHeuristicResult_t,
    cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t as Preferred,
    cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType,
};
use cudarc::driver::result::{free_sync, malloc_sync};
use half::bf16;

use super::words;
use crate::device::gpu::driver::{Address, DriverError, Result};

/// Scratch that an algorithm may take [bytes]; NVIDIA advises 32 MiB for Hopper.
const WORKSPACE: usize = 64 << 20;
/// Algorithms that are asked for.
const ALGORITHMS: usize = 16;

/// Which of the three products of training, by what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// y = x · Wᵀ
    Y,
    /// dx = dy · W
    Dx,
    /// dW = dyᵀ · x, in f32
    Dw,
}

/// A product of bare matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    pub kind: Kind,
    /// N
    pub rows: usize,
    /// I
    pub n_in: usize,
    /// O
    pub n_out: usize,
    /// Elements from one row of y or dy to the next.
    pub stride: usize,
    /// Of where the matrices begin [bytes]: a power of two, up to [`ALIGNED`].
    pub alignment: u32,
    /// Whether it is added to what is there.
    pub add: bool,
}

/// A matrix [rows, columns], by rows.
#[derive(Debug, Clone, Copy)]
struct Matrix {
    rows: usize,
    columns: usize,
    /// Elements from one row to the next.
    stride: usize,
    /// Whether the library is to transpose it.
    transposed: bool,
}

impl Matrix {
    fn turned(self) -> Matrix {
        Matrix { transposed: true, ..self }
    }
}

impl Product {
    /// A, B and D.
    fn matrices(&self) -> [Matrix; 3] {
        let Product { kind, rows, n_in, n_out, stride, .. } = *self;
        let of = |rows, columns, stride| Matrix { rows, columns, stride, transposed: false };
        let [x, w] = [of(rows, n_in, n_in), of(n_out, n_in, n_in)];
        let y = of(rows, n_out, stride);
        match kind {
            Kind::Y => [w.turned(), x, y],
            Kind::Dx => [w, y, x],
            Kind::Dw => [x, y.turned(), w],
        }
    }

    /// Elements of A, B and D.
    pub fn lens(&self) -> [usize; 3] {
        self.matrices().map(|m| m.rows * m.stride)
    }

    /// Of the three [bytes].
    pub fn bytes(&self) -> u64 {
        let [a, b, out] = self.lens();
        let of_out = if self.kind == Kind::Dw { size_of::<f32>() } else { size_of::<bf16>() };
        (size_of::<bf16>() * (a + b) + of_out * out) as u64
    }

    pub fn flops(&self) -> f64 {
        2.0 * self.rows as f64 * self.n_in as f64 * self.n_out as f64
    }
}

/// The alignment of memory as the driver gives it [bytes].
pub const ALIGNED: u32 = 256;

/// The library, on a GPU's stream.
#[derive(Debug)]
pub struct Blas {
    handle: cublasLtHandle_t,
    stream: sys::cudaStream_t,
    workspace: Address,
    /// Products that were asked for, and those of them that it can do.
    known: RefCell<HashMap<Product, Option<Rc<Prepared>>>>,
}

/// A product that the library can do, in one way or several.
#[derive(Debug)]
pub struct Prepared {
    product: Product,
    description: Description,
    /// Of A, B and D.
    layouts: [Layout; 3],
    algorithms: Vec<cublasLtMatmulAlgo_t>,
}

impl Blas {
    /// On a stream of the context that is current; the two outlive it.
    pub(super) fn open(stream: sys::cudaStream_t) -> Result<Blas> {
        // SAFETY: loading cuBLASLt runs its start-up code, as every program that links it does.
        if !unsafe { sys::is_culib_present() } {
            return Err(DriverError(
                "libcublasLt.so is nowhere: put its folder on LD_LIBRARY_PATH (a CUDA toolkit's \
                 lib64, or nvidia/cu13/lib of a pip that has torch)"
                    .into(),
            ));
        }
        let handle = said("a handle", result::create_handle())?;
        let mut blas = Blas { handle, stream, workspace: Address(0), known: RefCell::default() };
        // SAFETY: the library alone uses it, and asks for nothing of what is in it.
        let workspace = unsafe { malloc_sync(WORKSPACE) };
        let told = |error| DriverError(format!("cuBLASLt's workspace: {}", words::sentence(error)));
        blas.workspace = Address(workspace.map_err(told)?);
        Ok(blas)
    }

    /// E.g. `13.4.1`.
    pub fn version(&self) -> String {
        // SAFETY: the library is loaded.
        let version = unsafe { sys::cublasLtGetVersion() };
        format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
    }

    /// The ways to do a product that the library finds best.
    ///
    /// # Errors
    /// That it knows none.
    pub fn prepare(&self, product: &Product) -> Result<Prepared> {
        let [a, b, out] = product.matrices();
        let of_out = match product.kind {
            Kind::Dw => cudaDataType::CUDA_R_32F,
            _ => cudaDataType::CUDA_R_16BF,
        };
        let layouts = [
            Layout::of(&a, cudaDataType::CUDA_R_16BF)?,
            Layout::of(&b, cudaDataType::CUDA_R_16BF)?,
            Layout::of(&out, of_out)?,
        ];
        let description = Description::of(&a, &b)?;
        let algorithms = self.algorithms(&description, &layouts, product.alignment)?;
        Ok(Prepared { product: *product, description, layouts, algorithms })
    }

    fn algorithms(
        &self,
        description: &Description,
        [a, b, out]: &[Layout; 3],
        alignment: u32,
    ) -> Result<Vec<cublasLtMatmulAlgo_t>> {
        let preference = Preference::within(WORKSPACE, alignment)?;
        // SAFETY: zeros are a result: it has numbers alone, and a status whose 0 is success.
        let mut found: [cublasLtMatmulHeuristicResult_t; ALGORITHMS] = unsafe { zeroed() };
        let mut count = 0;
        // SAFETY: all descriptors live, and there is room for as many results as are asked for.
        let answer = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                description.0,
                a.0,
                b.0,
                out.0,
                out.0,
                preference.0,
                ALGORITHMS as i32,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        said("its algorithms", answer.result())?;
        let found = found.iter().take(count.max(0) as usize);
        let good = found.filter(|f| f.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        let algorithms: Vec<_> = good.map(|found| found.algo).collect();
        if algorithms.is_empty() {
            return Err(DriverError("cuBLASLt has no algorithm for this product".into()));
        }
        Ok(algorithms)
    }

    /// [`Blas::prepare`], once for each product; None where the library cannot do it.
    pub fn known(&self, product: &Product) -> Option<Rc<Prepared>> {
        let mut known = self.known.borrow_mut();
        known.entry(*product).or_insert_with(|| self.prepare(product).ok().map(Rc::new)).clone()
    }

    /// Starts the product the way that the library finds best.
    ///
    /// # Errors
    /// That it knows none, or refuses its own.
    pub fn start(&self, product: &Product, places: [Address; 3]) -> Result<()> {
        let unknown = || DriverError(format!("cuBLASLt does not do {product:?}"));
        self.multiply(&*self.known(product).ok_or_else(unknown)?, 0, places)
    }

    /// Starts the product on the GPU's stream, the `which`th way. A, B and D lie at `places`: for y
    /// they are W, x, y; for dx W, dy, dx; for dW x, dy, dW.
    ///
    /// # Errors
    /// That this way does not go.
    pub fn multiply(&self, prepared: &Prepared, which: usize, places: [Address; 3]) -> Result<()> {
        let product = &prepared.product;
        let [a, b, out] = places.map(|address| address.0 as *mut c_void);
        let (alpha, beta) = (1.0f32, if product.add { 1.0f32 } else { 0.0 });
        let [of_a, of_b, of_out] = &prepared.layouts;
        // SAFETY: the caller owns the places, as large as the layouts say; descriptors and scalars
        // live through the call.
        let answer = unsafe {
            result::matmul(
                self.handle,
                prepared.description.0,
                from_ref(&alpha).cast(),
                from_ref(&beta).cast(),
                a,
                of_a.0,
                b,
                of_b.0,
                out,
                of_out.0,
                out,
                of_out.0,
                &prepared.algorithms[which],
                self.workspace.0 as *mut c_void,
                WORKSPACE,
                self.stream,
            )
        };
        said("a product", answer)
    }
}

impl Prepared {
    /// In how many ways it can be done.
    pub fn ways(&self) -> usize {
        self.algorithms.len()
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        self.known.get_mut().clear();
        // SAFETY: both were made by `open`, and nothing is asked of them any more; memory is given
        // back once work that uses it is done.
        unsafe {
            if self.workspace != Address(0) {
                let _ = free_sync(self.workspace.0);
            }
            let _ = result::destroy_handle(self.handle);
        }
    }
}

/// A matrix, as the library knows it.
#[derive(Debug)]
struct Layout(cublasLtMatrixLayout_t);

impl Layout {
    fn of(matrix: &Matrix, element: cudaDataType) -> Result<Layout> {
        let (rows, columns) = (matrix.columns as u64, matrix.rows as u64);
        let made = result::create_matrix_layout(element, rows, columns, matrix.stride as i64);
        said("a matrix", made).map(Layout)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it was made by `of`, and is used no more.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What is to be done with A and B.
#[derive(Debug)]
struct Description(cublasLtMatmulDesc_t);

impl Description {
    fn of(a: &Matrix, b: &Matrix) -> Result<Description> {
        let sums = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let made = result::create_matmul_desc(sums, cudaDataType::CUDA_R_32F);
        let description = Description(said("a product's description", made)?);
        let sides = [
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, a),
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, b),
        ];
        for (attribute, matrix) in sides {
            // CUBLAS_OP_N is 0 and CUBLAS_OP_T is 1.
            let operation = i32::from(matrix.transposed);
            // SAFETY: the description was just made; the attribute is an operation.
            let set = unsafe {
                result::set_matmul_desc_attribute(
                    description.0,
                    attribute,
                    from_ref(&operation).cast(),
                    size_of_val(&operation),
                )
            };
            said("a transposition", set)?;
        }
        Ok(description)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: it was made by `of`, and is used no more.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// What algorithms may take.
struct Preference(cublasLtMatmulPreference_t);

impl Preference {
    fn within(workspace: usize, alignment: u32) -> Result<Preference> {
        let preference = Preference(said("a preference", result::create_matmul_pref())?);
        let bytes = workspace.to_ne_bytes();
        preference.set(Preferred::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes)?;
        for of in [
            Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preference.set(of, &alignment.to_ne_bytes())?;
        }
        Ok(preference)
    }

    fn set(&self, which: Preferred, value: &[u8]) -> Result<()> {
        // SAFETY: the preference was made by `within`; the value is as long as it says.
        let set = unsafe {
            let value = (value.as_ptr().cast(), value.len());
            result::set_matmul_pref_attribute(self.0, which, value.0, value.1)
        };
        said("a preference's value", set)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: it was made by `within`, and is used no more.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

/// An answer of the library, in words.
fn said<T>(of: &str, answer: std::result::Result<T, CublasError>) -> Result<T> {
    answer.map_err(|CublasError(status)| DriverError(format!("cuBLASLt refuses {of}: {status:?}")))
}
